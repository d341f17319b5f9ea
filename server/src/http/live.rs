//! Streams and downloads of one build, for its page.

use super::Edge;
use super::failure::Result;
use super::input::{Id, Params};
use super::visitor::SignedIn;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{Stream, StreamExt, TryStreamExt};
use kiops_app::backend::Caller;
use kiops_app::model::{BuildId, LiveMessage};
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;

/// A stream that has nothing to say beats: the page hears that it lives, and proxies close what is silent for a minute.
/// Twice this and a little more, and the page takes it for dead (`app/src/builds/stream.rs`).
const BEAT: Duration = Duration::from_secs(10);

pub fn router() -> Router<Edge> {
    Router::new().route("/builds/{id}/live", get(live)).route("/builds/{id}/log", get(log))
}

/// What one reply may hold in memory.
const MOST_AT_ONCE: usize = 8 << 20;

/// A snapshot, then patches. Whoever comes back, with `Last-Event-ID` or `?after=`, gets a snapshot again, which replaces
/// all that was known; `end` says that nothing more will come.
async fn live(State(edge): State<Edge>, SignedIn(caller): SignedIn, Id(id): Id<BuildId>) -> Result<impl IntoResponse> {
    let messages = edge.builds.watch(&caller, &id).await?;
    let events = until_over(messages).take_until(edge.stopping.clone().cancelled_owned());
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([unbuffered], Sse::new(events)))
}

/// Browsers drop an event without data.
fn say(name: &str) -> std::result::Result<Event, Infallible> {
    Ok(Event::default().event(name).data("."))
}

fn until_over(
    messages: impl Stream<Item = LiveMessage> + Send + 'static,
) -> impl Stream<Item = std::result::Result<Event, Infallible>> + Send {
    let state = (Box::pin(messages.fuse()), false, false);
    futures::stream::unfold(state, async |(mut messages, over, ended)| {
        match tokio::time::timeout(BEAT, messages.next()).await {
            Err(_) => Some((say("beat"), (messages, over, ended))),
            Ok(Some(message)) => {
                let (pos, over) = match &message {
                    LiveMessage::Snapshot(s) => (s.view.pos, s.build.head.status.is_final()),
                    LiveMessage::Patch(p) => {
                        (p.view.pos, over || p.build.as_ref().is_some_and(|build| build.head.status.is_final()))
                    }
                };
                let text = serde_json::to_string(&message).unwrap_or_default();
                Some((Ok(Event::default().id(pos.to_string()).data(text)), (messages, over, ended)))
            }
            // A stream that ended for another reason is asked for again.
            Ok(None) if over && !ended => Some((say("end"), (messages, over, true))),
            Ok(None) => None,
        }
    })
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default)]
    download: Option<u8>,
    /// For the clipboard: a log of more bytes is not sent at all.
    #[serde(default)]
    most: Option<usize>,
}

async fn log(
    State(edge): State<Edge>,
    SignedIn(caller): SignedIn,
    Id(id): Id<BuildId>,
    Params(query): Params<LogQuery>,
) -> Result<Response> {
    if let Some(most) = query.most {
        return log_up_to(&edge, &caller, &id, most.min(MOST_AT_ONCE)).await;
    }
    let mut response = log_text(&edge, &caller, &id).await?;
    if query.download.is_some_and(|flag| flag != 0) {
        let build = edge.backend.builds.get(&caller, &id).await?;
        let service = edge.backend.services.get(&caller, &build.head.service_id).await?;
        if let Ok(value) = HeaderValue::from_str(&attachment(&service.name, build.head.number)) {
            response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
        }
    }
    Ok(response)
}

const PLAIN: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// The whole log as text.
pub async fn log_text(edge: &Edge, caller: &Caller, id: &BuildId) -> Result<Response> {
    let pieces = edge.builds.log_text(caller, id).await?;
    Ok((PLAIN, Body::from_stream(pieces.into_stream())).into_response())
}

/// The whole log, or 204 and nothing where it is longer.
async fn log_up_to(edge: &Edge, caller: &Caller, id: &BuildId, most: usize) -> Result<Response> {
    let mut pieces = Box::pin(edge.builds.log_text(caller, id).await?);
    let mut text = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        text.extend_from_slice(&piece);
        if text.len() > most {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    Ok((PLAIN, text).into_response())
}

/// `orders-42.log`; a name in another script comes beside one that every program reads.
fn attachment(service: &str, number: i64) -> String {
    let plain: String = service
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect();
    let encoded: String = service
        .bytes()
        .map(|b| {
            let c = char::from(b);
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c.to_string() } else { format!("%{b:02X}") }
        })
        .collect();
    format!("attachment; filename=\"{plain}-{number}.log\"; filename*=UTF-8''{encoded}-{number}.log")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::BodyDataStream;
    use std::time::Instant as Clock;

    async fn heard(body: &mut BodyDataStream) -> String {
        String::from_utf8(body.next().await.unwrap().unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_news_beats() {
        let begun = (Clock::now(), tokio::time::Instant::now());
        let silent = until_over(futures::stream::pending());
        let mut body = Sse::new(silent).into_response().into_body().into_data_stream();
        for beats in 1..=3 {
            assert_eq!(heard(&mut body).await, "event: beat\ndata: .\n\n");
            assert_eq!(begun.1.elapsed().as_secs(), 10 * beats);
        }
        assert!(begun.0.elapsed() < Duration::from_secs(5), "the clock was to be a fake");
    }

    #[test]
    fn file_names_of_downloads() {
        assert_eq!(attachment("orders", 4), "attachment; filename=\"orders-4.log\"; filename*=UTF-8''orders-4.log");
        let named = attachment("주문 \"x\"", 7);
        assert!(named.contains("filename=\"----x--7.log\""), "{named}");
        assert!(named.contains("filename*=UTF-8''%EC%A3%BC%EB%AC%B8%20%22x%22-7.log"), "{named}");
    }
}
