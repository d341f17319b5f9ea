//! Logging, to standard error: what happened, never a secret, and nothing that a person is not meant to read twice.

use crate::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging. Called once, by the program; tests that start several servers in one process do without it.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|_| "KIOPS_LOG should be a level (error, warn, info, debug, trace) or levels by module".to_owned())?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(colours).with_target(false).try_init()
        }
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| format!("Logging could not be started: {error}"))
}
