//! A way to a server of this machine's loopback that can go silent: connections stay open and carry nothing any more, as
//! when a firewall on the way has forgotten them.

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::home::{Server, at_home, keep_running};

pub struct Line {
    port: u16,
    /// How often it has gone silent, and whether it is now.
    silence: watch::Sender<(u32, bool)>,
    _server: Server,
}

impl Line {
    pub async fn to(port: u16) -> Result<Self> {
        let listener = at_home(async { Ok(TcpListener::bind(("127.0.0.1", 0)).await?) }).await?;
        let own = listener.local_addr().context("the line's address")?.port();
        let silence = watch::Sender::new((0, false));
        let server = keep_running(serve(listener, port, silence.subscribe()));
        Ok(Self { port: own, silence, _server: server })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is connected hears nothing any more, for good, and nor does who connects from now on.
    pub fn go_silent(&self) {
        self.silence.send_modify(|(times, now)| (*times, *now) = (*times + 1, true));
    }

    /// Carries what connects from now on. What went silent stays so.
    pub fn carry_again(&self) {
        self.silence.send_modify(|(_, now)| *now = false);
    }
}

async fn serve(listener: TcpListener, port: u16, silence: watch::Receiver<(u32, bool)>) {
    // Ends with the task: a dropped line also closes its connections.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        connections.spawn(carry(from, port, silence.clone()));
    }
}

async fn carry(mut from: TcpStream, port: u16, mut silence: watch::Receiver<(u32, bool)>) {
    let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    for stream in [&from, &to] {
        let _ = stream.set_nodelay(true);
    }
    let began = *silence.borrow_and_update();
    if !began.1 {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut from, &mut to) => return,
            _ = async { silence.wait_for(|(times, _)| *times != began.0).await.is_ok() } => {}
        }
    }
    // Held open, and read no more.
    std::future::pending::<()>().await;
}
