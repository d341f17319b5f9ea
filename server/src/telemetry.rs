//! Logging, to standard error: what happened, never a secret, and nothing that a person is not meant to read twice.

use crate::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging. Called once, by the program; tests that start several servers in one process do without it.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = levels(filter)
        .ok_or("KIOPS_LOG should be a level (error, warn, info, debug, trace), or levels by module as module=level")?;
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

/// A single word must be a level: the filter itself would take a misspelled one for a module and log nothing.
fn levels(filter: &str) -> Option<EnvFilter> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let misspelled = filter.split(',').map(str::trim).any(|part| !part.contains('=') && !LEVELS.contains(&part));
    if misspelled { None } else { EnvFilter::try_new(filter).ok() }
}

#[cfg(test)]
mod tests {
    use super::levels;

    #[test]
    fn levels_and_misspelled_ones() {
        for good in ["info", "warn,kiops_server::git=debug", "off"] {
            assert!(levels(good).is_some(), "{good}");
        }
        for bad in ["", "inof", "kiops_server=loud", "info,debgu"] {
            assert!(levels(bad).is_none(), "{bad}");
        }
    }
}
