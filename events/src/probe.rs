//! What the agent of a self-test finds in the place where builds run: facts, on their way to the server, which judges them.

use serde::{Deserialize, Serialize};

/// As the last word of a container a report has 4096 bytes.
pub const MAX_REPORT_BYTES: usize = 4096;
/// How much is kept of what a program said.
const MAX_TEXT_CHARS: usize = 220;
/// That many registries fit into a report.
pub const MAX_REGISTRIES: usize = 6;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeReport {
    pub kernel: String,
    /// The agent's own user namespace: of a Pod, unless it has one of its own, the node's.
    pub own_ids: Vec<IdRange>,
    /// BuildKit's, as it is seen from there.
    pub daemon_ids: Vec<IdRange>,
    /// Whether a profile filters the agent's system calls.
    pub seccomp: bool,
    /// Whether no program that is started can have more rights than the agent.
    pub no_new_privileges: bool,
    /// How many user namespaces there may be, and whether AppArmor keeps ordinary users from making any.
    pub max_user_namespaces: Option<u64>,
    pub apparmor_restricts: bool,
    /// Why BuildKit does not run.
    pub daemon: Option<Refusal>,
    pub buildkit: String,
    pub snapshotter: String,
    /// How steps reach the network: `host` or `cni`.
    pub network: String,
    /// Why a build's share of the machine cannot be limited, where that was tried.
    pub limits_refused: Option<String>,
    /// Of a build of one small step; none when it was not tried.
    pub build: Option<Built>,
    pub registries: Vec<Asked>,
    /// Whether the address where clouds keep their machines' credentials could be reached; none when it was not tried.
    pub metadata_reached: Option<bool>,
}

/// A line of `/proc/…/uid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A failure's class.
    pub code: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    pub took_ms: u64,
    pub failure: Option<String>,
}

/// What BuildKit said when it was asked for an image that no registry has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub host: String,
    pub said: String,
}

impl IdRange {
    pub fn parse(map: &str) -> Vec<Self> {
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Self { inside: next()?, outside: next()?, count: next()? })
        };
        map.lines().filter_map(line).collect()
    }
}

impl ProbeReport {
    /// As a container's last word, which Kubernetes would cut off elsewhere: without the last registries, where those have
    /// long names.
    pub fn written(&self) -> serde_json::Result<Vec<u8>> {
        let mut report = self.clone();
        loop {
            let written = serde_json::to_vec(&report)?;
            if written.len() <= MAX_REPORT_BYTES || report.registries.pop().is_none() {
                return Ok(written);
            }
        }
    }
}

/// Who is root inside, as seen from outside.
pub fn root_of(map: &[IdRange]) -> Option<u32> {
    map.iter().find(|range| range.inside == 0).map(|range| range.outside)
}

/// The end of what was said, where its cause stands.
pub fn clipped(text: &str) -> String {
    let text = text.trim();
    let all = text.chars().count();
    text.chars().skip(all.saturating_sub(MAX_TEXT_CHARS)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let rootless = IdRange::parse("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(rootless.len(), 2);
        assert_eq!(root_of(&rootless), Some(1000));
        assert_eq!(root_of(&IdRange::parse("0 0 4294967295\n")), Some(0));
        assert_eq!(root_of(&IdRange::parse("1000 1000 1\nnonsense\n")), None);
    }

    #[test]
    fn a_report_fits_into_a_containers_last_word() {
        let long = "가\"".repeat(3000);
        let text = clipped(&long);
        assert_eq!(text.chars().count(), MAX_TEXT_CHARS);
        let ids = IdRange::parse("0 1000 1\n1 100000 65536\n");
        let mut report = ProbeReport {
            kernel: "6.12.0-1-cloud-amd64".into(),
            own_ids: ids.clone(),
            daemon_ids: ids,
            daemon: Some(Refusal { code: "node_setup".into(), reason: "x".repeat(MAX_TEXT_CHARS) }),
            build: Some(Built { took_ms: 1, failure: Some("x".repeat(MAX_TEXT_CHARS)) }),
            ..ProbeReport::default()
        };
        let asked = |host: &str| Asked { host: host.to_owned(), said: "x".repeat(MAX_TEXT_CHARS) };
        report.registries = vec![asked("registry.example.com:5000"); MAX_REGISTRIES];
        assert_eq!(serde_json::from_slice::<ProbeReport>(&report.written().unwrap()).unwrap(), report);
        report.registries = vec![asked(&"h".repeat(2000)); MAX_REGISTRIES];
        let written = report.written().unwrap();
        assert!(written.len() <= MAX_REPORT_BYTES, "{}", written.len());
        assert_eq!(serde_json::from_slice::<ProbeReport>(&written).unwrap().registries.len(), 1);
    }
}
