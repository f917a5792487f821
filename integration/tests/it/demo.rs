//! The main job in one command.

use hithe_integration::{Child, program};
use tokio::process::Command;

fn demo() -> Command {
    let mut demo = Command::new(program::hithed());
    demo.arg("demo").stdin(std::process::Stdio::null());
    demo
}

#[tokio::test]
async fn the_demo_publishes_with_this_machines_own_ssh_and_shows_the_first_answer() {
    let mut demo = Child::spawn(
        {
            let mut once = demo();
            once.arg("--once");
            once
        },
        None,
    );
    assert_eq!(demo.wait().await.code(), Some(0), "{}", demo.output());
    let said = demo.stdout();
    for part in
        ["ssh -F none", "-R 443:localhost:", "Forwarding  http://", "Forwarding  https://", "-> 200 OK"]
    {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[tokio::test]
async fn the_demo_goes_on_with_live_requests_until_ctrl_c() {
    let mut demo = Child::spawn(demo(), None);
    let line = demo.wait_for_text("curl --cacert").await;
    let words = shell_words::split(&line).unwrap();
    let mut curl = Command::new("curl");
    let name = words.last().unwrap().trim_start_matches("https://").to_owned();
    let (host, port) = name.split_once(':').unwrap();
    curl.args(["-s", "--cacert", &words[words.len() - 2], "--resolve", &format!("{host}:{port}:127.0.0.1")]);
    curl.arg(format!("https://{name}/path"));
    let mut curl = Child::spawn(curl, None);
    assert!(curl.wait().await.success(), "{}", curl.output());
    assert!(curl.stdout().contains("GET /path"), "{}", curl.output());
    demo.wait_for_text("GET /path").await;
    demo.interrupt().await;
    assert!(demo.wait().await.success(), "{}", demo.output());
}

#[tokio::test]
async fn without_ssh_the_demo_says_what_to_install() {
    let mut lonely = demo();
    lonely.env("PATH", "/nonexistent");
    let mut lonely = Child::spawn(lonely, None);
    assert_eq!(lonely.wait().await.code(), Some(1));
    assert!(lonely.stderr().contains("openssh-client"), "{}", lonely.output());
}
