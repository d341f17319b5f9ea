//! The bridge between a cluster's Pods and this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::home::{Server, at_home, keep_running};
use crate::process::output;

const PREFIX: &str = "kk";
const NETWORK: &str = "rig";
/// Addresses from here on are Services'. The network's own number comes before it and is no address.
const FIRST_SERVICE: u8 = 193;

pub(super) struct Net {
    bridge: String,
    /// The first three numbers of its addresses.
    subnet: [u8; 3],
}

impl Net {
    pub async fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        sweep();
        let pid = std::process::id();
        let net =
            Self { bridge: format!("{PREFIX}{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed)), subnet: free_subnet()? };
        let address = format!("{}/24", net.host());
        let [_, b, c] = net.subnet;
        // A bridge without an address of its own takes that of one of its ports, and another one when ports come and go:
        // who had learnt it is not heard any more.
        let own = format!("02:00:c6:{b:02x}:{c:02x}:01");
        for arguments in [
            &["link", "add", &net.bridge, "address", &own, "type", "bridge"][..],
            &["address", "add", &address, "dev", &net.bridge],
            &["link", "set", &net.bridge, "up"],
        ] {
            let mut command = Command::new("ip");
            command.args(arguments);
            output(command).await.context("a bridge for Pods")?;
        }
        Ok(net)
    }

    /// This machine, as Pods see it.
    pub fn host(&self) -> String {
        let [a, b, c] = self.subnet;
        format!("{a}.{b}.{c}.1")
    }

    /// Lets Pods reach a server of this machine's loopback, under the same port.
    pub async fn let_in(&self, port: u16) -> Result<Server> {
        forward((self.host(), port), port).await
    }

    /// The range of Services, of which only the API server's is there: a door at the first address, as Pods are told.
    pub fn services(&self) -> String {
        format!("{}/26", self.api_address())
    }

    fn api_address(&self) -> String {
        let [a, b, c] = self.subnet;
        format!("{a}.{b}.{c}.{}", FIRST_SERVICE)
    }

    /// Lets Pods reach the API server where every Pod expects it.
    pub async fn let_in_to_api(&self, port: u16) -> Result<Server> {
        let mut command = Command::new("ip");
        command.args(["address", "add", &format!("{}/32", self.api_address()), "dev", &self.bridge]);
        output(command).await.context("the API server's address")?;
        forward((self.api_address(), 443), port).await
    }
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// For the plugins that connect Pods. Nothing is translated: Pods reach each other and this machine, and no further.
    pub fn configuration(&self, addresses: &Path) -> Value {
        let [a, b, c] = self.subnet;
        json!({
            "cniVersion": "0.4.0",
            "name": NETWORK,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": addresses,
                        "ranges": [[{
                            "subnet": format!("{a}.{b}.{c}.0/24"),
                            "rangeEnd": format!("{a}.{b}.{c}.{}", FIRST_SERVICE - 2),
                        }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
            ],
        })
    }
}

/// Addresses that no Pod gets while this lives: also those that Pods on their way out give back.
pub struct TakenAddresses {
    over: Arc<AtomicBool>,
    taking: Option<JoinHandle<Vec<PathBuf>>>,
}

impl TakenAddresses {
    /// Written down where the plugin writes those that it gives away.
    pub(super) fn all(net: &Net, addresses: &Path) -> Result<Self> {
        let [a, b, c] = net.subnet;
        let folder = addresses.join(NETWORK);
        fs::create_dir_all(&folder)?;
        let files = (1..FIRST_SERVICE).map(|last| folder.join(format!("{a}.{b}.{c}.{last}")));
        let (mut free, mut taken): (Vec<_>, Vec<_>) = (files.collect(), Vec::new());
        let mut take = move || {
            let now: Vec<_> = free.extract_if(.., |file| fs::File::create_new(file).is_ok()).collect();
            taken.extend(now);
            taken.clone()
        };
        take();
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let taking = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                take();
                std::thread::sleep(Duration::from_millis(5));
            }
            take()
        });
        Ok(Self { over, taking: Some(taking) })
    }
}

impl Drop for TakenAddresses {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for file in self.taking.take().and_then(|taking| taking.join().ok()).into_iter().flatten() {
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output();
    }
}

/// A door at `address`, to a server of this machine's loopback.
async fn forward(address: (String, u16), port: u16) -> Result<Server> {
    let listener = at_home(async move { Ok(TcpListener::bind(address).await?) }).await?;
    Ok(keep_running(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    }))
}

/// From 198.18.0.0/15, which no real network uses, and none that this machine has a route to.
fn free_subnet() -> Result<[u8; 3]> {
    let routes = fs::read_to_string("/proc/net/route").context("the machine's routes")?;
    let taken: Vec<u32> = routes
        .lines()
        .skip(1)
        .filter_map(|line| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok().map(u32::swap_bytes))
        .collect();
    let start = std::process::id();
    (0..500)
        .map(|n| (start.wrapping_mul(31).wrapping_add(n)) % 500)
        .map(|n| [198, 18 + (n >> 8) as u8, n as u8])
        .find(|[a, b, c]| !taken.contains(&u32::from_be_bytes([*a, *b, *c, 0])))
        .context("no network is free for a cluster")
}

/// Removes bridges that killed processes have left.
fn sweep() {
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let owner = owner.filter(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["link", "delete", &name]).output();
        }
    }
}
