//! Several services over one login, and what becomes of them.
//!
//! `cargo run -p hithe --example several_endpoints -- tunnel.example.com`

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example that people run")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).ok_or("say the server: several_endpoints tunnel.example.com")?;
    let session = hithe::Session::builder().server(server).ask(hithe::Terminal).build()?;
    let web = session
        .http()
        .basic_auth("ada", "correct-horse")
        .flag("compression")
        .forward("localhost:3000")
        .await?;
    let ssh = session.tcp().forward("localhost:22").await?;
    println!("{}\n{}", web.url(), ssh.url());
    let mut events = web.events();
    loop {
        tokio::select! {
            Some(status) = events.next() => println!("{} is {:?}", status.name, status.phase),
            ended = ssh.ended() => return Ok(ended?),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    web.close().await;
    ssh.close().await;
    Ok(())
}
