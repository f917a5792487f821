//! How much of the server anybody may have.

mod accounts;
mod logins;
mod visitors;

use hithe_integration::{OpenSsh, TestServer};

/// A server at which ada, an admin, publishes, started with these options.
async fn server_of_ada(words: &[&str]) -> TestServer {
    let server =
        TestServer::with(|options| words.iter().fold(options, |options, word| options.arg(*word))).await;
    server.admin("accounts add ada --admin");
    add_key(&server, "ada", &server.user_key());
    // The server looks for what other programs write every two seconds.
    hithe_integration::within("ada is an admin", async {
        while !log_in(|| server.ssh().command("whoami")).await.contains("Admin     yes") {}
    })
    .await;
    server
}

fn add_key(server: &TestServer, account: &str, key: &std::path::Path) {
    server.admin(&format!("keys add {account} '{}'", TestServer::public_half(key)));
}

/// Runs a command as soon as its key is known; gives what it prints.
async fn log_in(ssh: impl Fn() -> OpenSsh) -> String {
    hithe_integration::within("a login", async {
        loop {
            let done = ssh().run().await;
            if done.code != Some(255) {
                return done.stdout;
            }
        }
    })
    .await
}

/// How often the server refused something for this reason.
async fn refusals(server: &TestServer, code: &str) -> u64 {
    let status = server.ssh().command("status --json").run().await;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    status.get("refusals").and_then(|all| all.get(code)?.as_u64()).unwrap_or(0)
}
