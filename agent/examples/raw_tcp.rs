//! A TCP service within the program: what visitors send comes back.
//!
//! `cargo run -p hithe --example raw_tcp -- tunnel.example.com`

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).ok_or("say the server: raw_tcp tunnel.example.com")?;
    let session = hithe::Session::builder().server(server).ask(hithe::Terminal).build()?;
    let mut listener = session.tcp().listen().await?;
    #[expect(clippy::print_stdout, reason = "an example that people run")]
    {
        println!("{}", listener.url());
    }
    let visits = tokio_util::task::TaskTracker::new();
    while let Some(connection) = listener.accept().await {
        visits.spawn(async move {
            let (mut read, mut write) = tokio::io::split(connection);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
    Ok(())
}
