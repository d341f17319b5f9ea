//! A Pod of the double: its folder, the real relay in it, the replay beside it, and its status.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kiops_events::spec::{AgentSpec, FilesSpec};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::Double;
use super::objects::{Failure, Resource, now};
use crate::home::{Server, free_port, keep_running};
use crate::process::Daemon;

/// As the kubelet has it.
const RELAY: &str = "relay";
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is at work for a Pod. Dropped, it ends.
pub struct Attempt {
    _life: Server,
    relay: Option<(Daemon, u16)>,
}

impl Attempt {
    /// Where its relay listens: all Pods of the double are on this machine's loopback.
    pub fn port(&self) -> Option<u16> {
        self.relay.as_ref().map(|(_, port)| *port)
    }
}

/// Scheduled at once; its containers follow.
pub fn create(double: &Arc<Double>, mut pod: Value) -> Result<Value, Failure> {
    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
    pod["status"] = status(&pod, "Pending", |_| waiting.clone());
    let mut state = double.state();
    let created = state.objects.create(Resource::Pods, pod)?;
    let name = created["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let life = keep_running(live(double.clone(), name.clone(), created.clone()));
    state.attempts.insert(name, Attempt { _life: life, relay: None });
    Ok(created)
}

async fn live(double: Arc<Double>, name: String, pod: Value) {
    let ended = run(&double, &name, &pod).await;
    if let Err(error) = &ended {
        eprintln!("the double's Pod {name}: {error:#}");
    }
    let good = ended.is_ok_and(|status| status.success());
    let code = u8::from(!good);
    let phase = if good { "Succeeded" } else { "Failed" };
    tell(&double, &name, &status(&pod, phase, |_| terminated(code)));
}

/// From its containers' start to the relay's end.
async fn run(double: &Arc<Double>, name: &str, pod: &Value) -> Result<ExitStatus> {
    let folder = double.folder.join(name);
    let spec = furnish(double, &folder, pod)?;
    let port = free_port();
    let mut command = Command::new(&double.agent);
    command.arg("relay").arg("--dir").arg(&folder).args(["--port", &port.to_string()]);
    let relay = Daemon::start(command, Signal::KILL, &folder.join("log")).await?;
    match double.state().attempts.get_mut(name) {
        Some(attempt) => attempt.relay = Some((relay, port)),
        // Deleted meanwhile: this task ends at its next step.
        None => return Ok(ExitStatus::default()),
    }
    let running = json!({ "running": { "startedAt": now() } });
    tell(double, name, &status(pod, "Running", |_| running.clone()));
    double.recording.play(&spec).await.context("the replay")?;
    let state_of = |container: &str| if container == RELAY { running.clone() } else { terminated(0) };
    tell(double, name, &status(pod, "Running", state_of));
    loop {
        let ended = match double.state().attempts.get_mut(name).and_then(|attempt| attempt.relay.as_mut()) {
            Some((relay, _)) => relay.ended()?,
            None => return Ok(ExitStatus::default()),
        };
        match ended {
            Some(ended) => return Ok(ended),
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The folder with what the Pod's volumes give to its relay, and the specification that names it.
fn furnish(double: &Double, folder: &Path, pod: &Value) -> Result<AgentSpec> {
    let volumes = pod["spec"]["volumes"].as_array().context("a Pod without volumes")?;
    let secret = volumes.iter().find_map(|volume| volume["secret"]["secretName"].as_str());
    let secret = secret.context("a Pod without a Secret")?;
    let data = match double.state().objects.get(Resource::Secrets, secret) {
        Ok(secret) => secret["data"].clone(),
        Err(_) => anyhow::bail!("there is no Secret {secret}"),
    };
    let item = |name: &str| -> Result<Vec<u8>> {
        let text = data[name].as_str().with_context(|| format!("the Secret {secret} has no {name}"))?;
        Ok(BASE64_STANDARD.decode(text)?)
    };
    let mut spec: AgentSpec = serde_json::from_slice(&item("spec.json")?).context("spec.json")?;
    let at = |name: &str| folder.join(name);
    spec.files = FilesSpec {
        workspace: at("workspace"),
        spool: at("spool"),
        key: at("key"),
        docker_config: at("docker"),
        ..FilesSpec::default()
    };
    // A second Pod of the same name would go on with the first one's spool.
    ensure!(!folder.exists(), "a Pod of this name was here before");
    std::fs::create_dir(folder)?;
    std::fs::write(&spec.files.key, item("key")?)?;
    std::fs::write(at("spec.json"), serde_json::to_vec(&spec)?)?;
    Ok(spec)
}

fn tell(double: &Double, name: &str, status: &Value) {
    // One that is deleted has no status any more.
    let _ = double.state().objects.patch(Resource::Pods, name, &json!({ "status": status }));
}

fn terminated(code: u8) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({ "terminated": { "exitCode": code, "reason": reason, "finishedAt": now() } })
}

/// `state_of`: of a container, by its name.
fn status(pod: &Value, phase: &str, state_of: impl Fn(&str) -> Value) -> Value {
    let of = |containers: &str, state_of: &dyn Fn(&str) -> Value| -> Vec<Value> {
        let described = |container: &Value| {
            let state = state_of(container["name"].as_str().unwrap_or_default());
            json!({
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": state["running"].is_object(),
                "restartCount": 0,
                "state": state,
            })
        };
        pod["spec"][containers].as_array().into_iter().flatten().map(described).collect()
    };
    json!({
        "phase": phase,
        "conditions": [{ "type": "PodScheduled", "status": "True" }],
        "initContainerStatuses": of("initContainers", &|_| terminated(0)),
        "containerStatuses": of("containers", &state_of),
    })
}
