//! Proxies in front of a server: the machine's own `haproxy` and `nginx`, on ports of their own.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tokio::process::{Child, Command};

use crate::server::ports::PortBlock;
use crate::wait::eventually;

/// A running proxy. It is killed when dropped.
#[derive(Debug)]
pub struct Front {
    ports: PortBlock,
    _process: Child,
}

impl Front {
    /// haproxy with this configuration, in which `PORT0`, `PORT1`, … are ports on which it listens.
    pub async fn haproxy(folder: &Path, configuration: &str) -> Self {
        let head = "global\n maxconn 200\ndefaults\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n";
        let ports = PortBlock::reserve();
        let (file, count) = write(folder, "haproxy", &ports, &format!("{head}{configuration}\n"));
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-q", "-f"]).arg(file);
        Self::start(command, ports, count).await
    }

    /// nginx with this `stream` block, with ports as above.
    pub async fn nginx_stream(folder: &Path, rules: &str) -> Self {
        let ports = PortBlock::reserve();
        let configuration = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
             daemon off; master_process off; pid nginx.pid; events {{}} stream {{ {rules} }}"
        );
        let (file, count) = write(folder, "nginx", &ports, &configuration);
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(file);
        Self::start(command, ports, count).await
    }

    async fn start(mut command: Command, ports: PortBlock, count: usize) -> Self {
        let process = command.kill_on_drop(true).spawn().expect("the proxy starts");
        let front = Self { ports, _process: process };
        for number in 0..count {
            let address = front.address(number);
            eventually("the proxy listens", || TcpStream::connect(address).ok()).await;
        }
        front
    }

    /// Where its port of this number is.
    pub fn address(&self, number: usize) -> SocketAddr {
        let port = self.ports.range().nth(number).expect("a port of the block");
        ([127, 0, 0, 1], port).into()
    }
}

/// The file, and how many ports it names.
fn write(folder: &Path, name: &str, ports: &PortBlock, configuration: &str) -> (std::path::PathBuf, usize) {
    let named = (0..).take_while(|number| configuration.contains(&format!("PORT{number}"))).count();
    let mut text = configuration.to_owned();
    for (number, port) in ports.range().take(named).enumerate().rev() {
        text = text.replace(&format!("PORT{number}"), &format!("127.0.0.1:{port}"));
    }
    let file = folder.join(format!("{name}-{}.conf", ports.range().start()));
    std::fs::write(&file, text).expect("a configuration is written");
    (file, named)
}
