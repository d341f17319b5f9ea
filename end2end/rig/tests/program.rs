//! The rig as a program: its protocol, and that nothing outlives it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(arguments: &[&str]) -> Result<(Self, Value)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiops-rig"));
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let input = child.stdin.take();
        let mut program = Self { child, input, output };
        let addresses = program.line()?;
        Ok((program, addresses))
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn obey(&mut self, order: Value) -> Result<Value> {
        writeln!(self.input.as_mut().context("an open input")?, "{order}")?;
        let reply = self.line()?;
        ensure!(reply["ok"] == true, "{order}: {reply}");
        Ok(reply["result"].clone())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: &str) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

fn wait_for_silence(address: &str) {
    let start = Instant::now();
    while answers(address) {
        assert!(start.elapsed() < Duration::from_secs(5), "{address} still answers");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn serve_obeys_one_command_a_line() -> Result<()> {
    let (mut rig, addresses) = Program::start(&["serve", "--registry-login", "robot:secret", "--git-token", "token"])?;
    let url = rig.obey(json!({ "cmd": "new_repo", "repo": "app" }))?;
    assert_eq!(url, format!("{}/app.git", addresses["git_url"].as_str().context("an address")?));
    let files = json!({ "Dockerfile": "FROM busybox:1\n" });
    let first = rig.obey(json!({ "cmd": "commit", "repo": "app", "branch": "main", "files": files }))?;
    rig.obey(json!({ "cmd": "branch", "repo": "app", "name": "other", "from": "main" }))?;
    assert_eq!(rig.obey(json!({ "cmd": "head", "repo": "app", "branch": "other" }))?, first);
    rig.obey(json!({ "cmd": "registry_fault", "on": "pushes", "fault": { "status": 403 } }))?;
    rig.obey(json!({ "cmd": "registry_fault", "fault": "drop" }))?;
    rig.obey(json!({ "cmd": "registry_fault" }))?;
    assert_eq!(rig.obey(json!({ "cmd": "manifest", "name": "app", "reference": "1" }))?, Value::Null);
    rig.obey(json!({ "cmd": "registry_stop" }))?;
    assert!(rig.obey(json!({ "cmd": "tags", "name": "app" })).is_err());
    rig.obey(json!({ "cmd": "registry_start" }))?;
    assert_eq!(rig.obey(json!({ "cmd": "tags", "name": "app" }))?, json!([]));
    assert!(rig.obey(json!({ "cmd": "unheard_of" })).is_err());
    Ok(())
}

#[test]
fn nothing_outlives_a_closed_input_or_a_kill() -> Result<()> {
    let (mut rig, addresses) = Program::start(&["serve"])?;
    rig.input = None;
    assert!(rig.child.wait()?.success());
    assert!(!answers(addresses["registry"].as_str().context("an address")?));

    let (rig, addresses) = Program::start(&["serve"])?;
    drop(rig);
    wait_for_silence(addresses["registry"].as_str().context("an address")?);
    Ok(())
}

/// Those after it are nobody else's either: tests of a process take theirs in order.
fn first_port() -> u16 {
    let ports: Vec<u16> = (0..20).map(|_| kiops_rig::free_port()).collect();
    ports[0]
}

fn demo(dir: &Path, first_port: u16) -> Result<(Program, Value)> {
    let port = first_port.to_string();
    Program::start(&["demo", "--dir", dir.to_str().context("a plain path")?, "--first-port", &port])
}

fn port_of(address: &Value) -> Result<u16> {
    let text = address.as_str().context("an address")?;
    Ok(text.rsplit(':').next().context("a port")?.trim_end_matches('/').parse()?)
}

#[test]
fn demo_keeps_its_addresses_and_content() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first_port = first_port();
    let (first, before) = demo(folder.path(), first_port)?;
    drop(first);
    // At once: the registry may be on its way out still.
    let (_demo, after) = demo(folder.path(), first_port)?;
    assert_eq!(before, after);
    let service = after["service_json"].as_str().context("a path")?;
    let service: Value = serde_json::from_str(&std::fs::read_to_string(Path::new(service))?)?;
    let url = service["source"]["url"].as_str().context("an address")?;
    let token = service["source"]["token"].as_str().context("a token")?;
    let url = url.replace("http://", &format!("http://any:{token}@"));
    let refs = Command::new("git").args(["ls-remote", &url]).output()?;
    assert_eq!(String::from_utf8(refs.stdout)?.matches("refs/heads/").count(), 2);
    Ok(())
}

#[test]
fn demo_counts_upward_from_a_taken_port_and_stays_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first_port = first_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", first_port))?;
    let (first, moved) = demo(folder.path(), first_port)?;
    let (registry, git) = (port_of(&moved["registry"])?, port_of(&moved["git_url"])?);
    assert!(first_port < registry && registry < first_port + 20, "{first_port} {registry}");
    // Which of the two is the lower one depends on what else takes and frees ports meanwhile.
    assert!(registry != git && first_port < git && git < first_port + 20, "{first_port} {registry} {git}");
    drop((first, taken));
    let (_demo, again) = demo(folder.path(), first_port)?;
    assert_eq!(moved, again);
    Ok(())
}

#[test]
fn demo_is_the_only_one_of_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, _) = demo(folder.path(), first_port())?;
    let kept = std::fs::read(folder.path().join("demo.json"))?;
    let refused = Command::new(env!("CARGO_BIN_EXE_kiops-rig")).args(["demo", "--dir"]).arg(folder.path()).output()?;
    let said = String::from_utf8(refused.stderr)?;
    assert!(!refused.status.success() && said.contains("Another `make run`") && said.contains("KIOPS_DATA"), "{said}");
    assert!(said.contains(&first.child.id().to_string()), "{said}");
    assert_eq!(std::fs::read(folder.path().join("demo.json"))?, kept);
    Ok(())
}
