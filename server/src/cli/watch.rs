//! Following a build to its end: the log line by line, taken up again where it broke off.

use super::client::{Client, Trouble};
use kiops_app::model::BuildDetail;
use kiops_events::StoredEvent;
use kiops_events::rows::write_rows;
use std::io::Write;
use std::time::Duration;

/// How long a server may be away (a restart, an update) before the watch gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn until_over(client: &Client, id: &str) -> Result<BuildDetail, Trouble> {
    let mut seen = 0;
    let mut away_since = None;
    loop {
        let before = seen;
        let trouble = match follow(client, id, &mut seen).await {
            Ok(()) => match client.get::<BuildDetail>(&format!("builds/{id}")).await {
                Ok(build) if build.head.status.is_final() => return Ok(build),
                // The stream ended with the server: there is more to come.
                Ok(_) => None,
                Err(trouble) => Some(trouble),
            },
            Err(trouble) => Some(trouble),
        };
        match trouble {
            Some(Trouble::Broken(cause)) => {
                let since = *away_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(Trouble::Broken(cause));
                }
            }
            Some(said) => return Err(said),
            None => away_since = None,
        }
        if seen > before {
            away_since = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints what comes after `seen` until the stream ends.
async fn follow(client: &Client, id: &str, seen: &mut u64) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    let mut pending: Vec<u8> = Vec::new();
    client
        .copy(&format!("builds/{id}/events?after={seen}"), |bytes| {
            pending.extend_from_slice(bytes);
            let Some(end) = pending.iter().rposition(|b| *b == b'\n') else { return Ok(()) };
            for line in pending[..end].split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                // An event of a newer server that cannot be read is skipped, not fatal.
                let Ok(event) = serde_json::from_slice::<StoredEvent>(line) else { continue };
                if event.pos > *seen {
                    *seen = event.pos;
                    let mut wrote = Ok(());
                    write_rows(&event.kind, |row| {
                        if wrote.is_ok() {
                            wrote = writeln!(out, "{}", row.to_text());
                        }
                    });
                    wrote?;
                }
            }
            pending.drain(..=end);
            out.flush()
        })
        .await
}
