//! A wire between two nodes that can be cut or made silent.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Bytes stop and connections stay.
    Silent,
    /// Connections break, new ones pass once this ends.
    Cut,
}

pub(crate) struct Proxy {
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (mode, on_mode) = watch::channel(Mode::Pass);
        let task = tokio::spawn(async move {
            let mut wires = JoinSet::new();
            loop {
                let (near, _from) = listener.accept().await.unwrap();
                if *on_mode.borrow() == Mode::Cut {
                    continue;
                }
                let mode = on_mode.clone();
                wires.spawn(async move {
                    if let Ok(far) = TcpStream::connect(to).await {
                        carry(near, far, mode).await;
                    }
                });
            }
        });
        Self { mode, task }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(near: TcpStream, far: TcpStream, mut mode: watch::Receiver<Mode>) {
    let (near_out, near_in) = near.into_split();
    let (far_out, far_in) = far.into_split();
    tokio::select! {
        () = one_way(near_out, far_in, mode.clone()) => {}
        () = one_way(far_out, near_in, mode.clone()) => {}
        _cut = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if mode.wait_for(|mode| *mode == Mode::Pass).await.is_err()
            || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}
