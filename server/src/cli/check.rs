//! `kiops check`: tries out the place where builds run, without a server and beside one.

use crate::check::{Check, Target};
use crate::config::Config;
use crate::git::AddressPolicy;
use crate::registry::RegistryClient;
use crate::serve::place_of_check;
use anyhow::{Result, anyhow};
use clap::Args;
use kiops_app::locales::{Lang, tell_findings};
use kiops_app::model::{CheckOutcome, CheckReport};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// Registry that builds are to reach, as it stands in an image's name; may be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    registry: Vec<String>,
    /// Print one JSON object in place of lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: Config,
}

/// Exit codes: 0 builds work, also with warnings; 1 something failed.
pub async fn run(arguments: CheckArguments, stopping: CancellationToken) -> Result<ExitCode> {
    let config = &arguments.config;
    let place = place_of_check(config)?;
    // Whoever calls it names the registries; nobody else's wishes are at work.
    let registry = Arc::new(RegistryClient::new(AddressPolicy { loopback: true }));
    let insecure = |host: &String| config.insecure_registries.contains(host);
    let targets = arguments.registry.iter().map(|host| Target { host: host.clone(), plain_http: insecure(host) });
    let check = Arc::new(Check::new(place, registry, stopping));
    let report = check.run(targets.collect()).await;
    let mut report = report.map_err(|problem| anyhow!("The check was not made: {problem}"))?;
    tell_findings(Lang::En, &mut report);
    let text = if arguments.json { serde_json::to_string_pretty(&report)? + "\n" } else { lines(&report) };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(report: &CheckReport) -> String {
    let mut out = String::new();
    let width = report.findings.iter().map(|finding| finding.title.chars().count()).max().unwrap_or_default();
    for finding in &report.findings {
        let word = match finding.outcome {
            CheckOutcome::Ok => "ok",
            CheckOutcome::Warning => "warn",
            CheckOutcome::Failed => "FAIL",
            CheckOutcome::Skipped => "skip",
        };
        let _ = writeln!(out, "{word:<5} {:<width$}  {}", finding.title, finding.message);
        if let Some(advice) = finding.advice.as_ref().filter(|_| finding.outcome != CheckOutcome::Ok) {
            let _ = writeln!(out, "{:<5} {:<width$}  → {advice}", "", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_app::model::{Finding, RunnerKind};

    #[test]
    fn a_finding_is_a_line_and_what_to_do_the_next_one() {
        let mut report = CheckReport {
            runner: RunnerKind::Kubernetes,
            checked_at: 0,
            took_ms: 1,
            findings: vec![
                Finding::ok("namespace", "namespace_ok").with("namespace", "kiwi-builds"),
                Finding::failed("images", "images_unset"),
            ],
        };
        tell_findings(Lang::En, &mut report);
        let said = lines(&report);
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(said[0], "ok    Namespace  kiwi-builds is there.");
        assert!(said[1].starts_with("FAIL  Images     KIOPS_IMAGE is not set"), "{said:?}");
        assert!(said[2].starts_with("                 → Set KIOPS_IMAGE"), "{said:?}");
    }
}
