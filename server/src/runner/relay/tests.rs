//! A relay of a few lines speaks the protocol from the other end; what it does wrong is said by each test.

use super::*;
use kiops_events::wire::{Begin, Proof};
use std::sync::{Arc, Mutex};
use tokio::io::{DuplexStream, duplex};

const KEY: &[u8] = b"the key of this build";

fn peer() -> Peer {
    Peer { build: BuildId::from_random([5; 20]), attempt: 2, key: KEY.to_vec() }
}

fn payload(seq: u64) -> Vec<u8> {
    let kind = EventKind::Note { code: format!("n{seq}"), args: Default::default() };
    serde_json::to_vec(&AgentEvent { attempt: 2, seq, offset_ms: seq as i64, kind }).unwrap()
}

/// The far end: frames over a pipe.
struct Far {
    wire: Wire,
}

impl Far {
    fn new(stream: DuplexStream) -> Self {
        let (read, write) = tokio::io::split(Box::new(stream) as Box<dyn RelayIo>);
        Self { wire: Wire::new(read, write) }
    }

    /// Answers the handshake with `key`; gives back where the server wants to go on.
    async fn greet(&mut self, key: &[u8]) -> Result<u64, RelayError> {
        let Frame::Hello(hello) = self.wire.receive().await? else { panic!("no hello") };
        let nonce = "relay nonce".to_owned();
        let mac = prove(key, Side::Agent, &hello.build, hello.attempt, &hello.nonce, &nonce);
        self.wire.send(&Frame::Proof(Proof { version: VERSION, nonce: nonce.clone(), mac })).await?;
        let Frame::Answer(answer) = self.wire.receive().await? else { panic!("no answer") };
        assert!(proven(key, Side::Server, &hello.build, hello.attempt, &nonce, &hello.nonce, &answer.mac));
        self.wire.send(&Frame::Begin(Begin { now_ms: 77 })).await?;
        Ok(hello.after)
    }

    async fn event(&mut self, seq: u64) {
        self.wire.send(&Frame::Event(payload(seq))).await.unwrap();
    }
}

fn pipe() -> (Box<dyn RelayIo>, Far) {
    let (near, far) = duplex(1 << 20);
    (Box::new(near), Far::new(far))
}

/// Opens a conversation with a far end that does nothing wrong until it is handed over.
async fn talking(after: u64) -> (Conversation, Far) {
    let (near, mut far) = pipe();
    let greeted = tokio::spawn(async move {
        assert_eq!(far.greet(KEY).await.unwrap(), after);
        far
    });
    let conversation = open(near, &peer(), after).await.unwrap();
    (conversation, greeted.await.unwrap())
}

async fn read(conversation: &mut Conversation, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(conversation.next().await.unwrap().iter().map(|r| r.seq));
    }
    seen
}

#[tokio::test]
async fn events_come_in_order_from_where_the_server_stands() {
    let (mut conversation, mut far) = talking(4).await;
    assert_eq!(conversation.agent_now_ms, 77);
    for seq in 5..=7 {
        far.event(seq).await;
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(conversation.next().await.unwrap());
    }
    assert_eq!(got.iter().map(|r| r.seq).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!((got[0].payload.clone(), got[0].offset_ms), (payload(5), 5));
    conversation.ack(7);
    assert_eq!(far.wire.receive().await.unwrap(), Frame::Ack(7));
    let told = tokio::spawn(conversation.release());
    assert_eq!(far.wire.receive().await.unwrap(), Frame::Release);
    told.await.unwrap();
    assert!(far.wire.receive().await.is_err(), "the connection stays open");
}

#[tokio::test]
async fn a_relay_that_does_not_know_the_key_learns_nothing() {
    let (near, far) = pipe();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    let stranger = tokio::spawn(async move {
        let mut far = far;
        let Frame::Hello(hello) = far.wire.receive().await.unwrap() else { panic!("no hello") };
        let mac = prove(b"a guess", Side::Agent, &hello.build, hello.attempt, &hello.nonce, "n");
        far.wire.send(&Frame::Proof(Proof { version: VERSION, nonce: "n".into(), mac })).await.unwrap();
        while let Ok(frame) = far.wire.receive().await {
            notes.lock().unwrap().push(frame);
        }
    });
    assert!(matches!(open(near, &peer(), 0).await, Err(RelayError::NotProven)));
    stranger.await.unwrap();
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn refusals_and_newer_versions_are_told_apart() {
    type Holds = fn(&RelayError) -> bool;
    let answers: [(Frame, Holds); 3] = [
        (Frame::Refused("another build".into()), |e| matches!(e, RelayError::Refused(why) if why == "another build")),
        (
            Frame::Proof(Proof { version: VERSION + 1, nonce: "n".into(), mac: String::new() }),
            |e| matches!(e, RelayError::Newer(v) if *v == VERSION + 1),
        ),
        (Frame::Begin(Begin { now_ms: 0 }), |e| matches!(e, RelayError::Protocol(_))),
    ];
    for (answer, fits) in answers {
        let (near, mut far) = pipe();
        let told = tokio::spawn(async move {
            far.wire.receive().await.unwrap();
            far.wire.send(&answer).await.unwrap();
            far
        });
        let error = open(near, &peer(), 0).await.err().unwrap();
        assert!(fits(&error), "{error}");
        told.await.unwrap();
    }
}

#[tokio::test]
async fn repeats_are_passed_over_and_gaps_are_not() {
    let (mut conversation, mut far) = talking(2).await;
    for seq in [1, 2, 3, 3, 4, 2, 5] {
        far.event(seq).await;
    }
    assert_eq!(read(&mut conversation, 3).await, [3, 4, 5]);
    far.event(7).await;
    assert!(matches!(conversation.next().await, Err(RelayError::Gap { expected: 6, got: 7 })));
}

#[tokio::test]
async fn an_event_that_is_none_ends_the_conversation() {
    let wrong_attempt = serde_json::json!({"attempt": 1, "seq": 1, "t": 0, "k": "note", "code": "x"}).to_string();
    for bad in ["{", "{}", "[]", &wrong_attempt] {
        let (mut conversation, mut far) = talking(0).await;
        far.wire.send(&Frame::Event(bad.as_bytes().to_vec())).await.unwrap();
        assert!(matches!(conversation.next().await, Err(RelayError::Protocol(_))), "{bad}");
    }
    let (mut conversation, mut far) = talking(0).await;
    far.wire.send(&Frame::Ack(1)).await.unwrap();
    assert!(matches!(conversation.next().await, Err(RelayError::Protocol(_))));
}

/// The far end's bytes for a whole conversation are cut at every point: what came whole is handed over, the rest is an
/// error, and going on after it gives the same events once.
#[tokio::test]
async fn a_cut_at_any_point_loses_and_repeats_nothing() {
    const EVENTS: u64 = 4;
    let mut stream = Vec::new();
    (1..=EVENTS).for_each(|seq| Frame::Event(payload(seq)).encode(&mut stream));
    for cut in 0..=stream.len() {
        let mut seen = Vec::new();
        let (mut conversation, mut far) = talking(0).await;
        far.wire.write.write_all(&stream[..cut]).await.unwrap();
        drop(far);
        while let Ok(batch) = conversation.next().await {
            seen.extend(batch.iter().map(|r| r.seq));
        }
        let after = seen.len() as u64;
        let (mut conversation, mut far) = talking(after).await;
        for seq in after + 1..=EVENTS {
            far.event(seq).await;
        }
        let left = (EVENTS - after) as usize;
        seen.extend(read(&mut conversation, left).await);
        assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>(), "cut at {cut}");
    }
    // The same for the handshake: no cut of it hangs or is taken for a conversation.
    let mut opening = Vec::new();
    Frame::Proof(Proof { version: VERSION, nonce: "n".into(), mac: "00".repeat(32) }).encode(&mut opening);
    for cut in 0..opening.len() {
        let (near, mut far) = pipe();
        far.wire.write.write_all(&opening[..cut]).await.unwrap();
        drop(far);
        assert!(matches!(open(near, &peer(), 0).await, Err(RelayError::Broken(_))), "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_and_beats_keep_a_quiet_build_alive() {
    let (mut conversation, mut far) = talking(0).await;
    let start = Instant::now();
    let beats = tokio::spawn(async move {
        let mut heard = 0;
        // Long beyond the limit, but never silent.
        for _ in 0..10 {
            tokio::time::sleep(BEAT_EVERY).await;
            far.wire.send(&Frame::Beat).await.unwrap();
            while let Ok(Ok(Frame::Beat)) = timeout(Duration::from_millis(1), far.wire.receive()).await {
                heard += 1;
            }
        }
        far.event(1).await;
        (far, heard)
    });
    assert_eq!(read(&mut conversation, 1).await, [1]);
    assert!(start.elapsed() >= BEAT_EVERY * 10);
    let (_far, heard) = beats.await.unwrap();
    assert!(heard >= 9, "only {heard} beats from the server");
    let quiet = Instant::now();
    assert!(matches!(conversation.next().await, Err(RelayError::Silent)));
    assert!(quiet.elapsed() <= SILENCE_LIMIT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_never_answers_is_given_up() {
    let (near, _far) = pipe();
    assert!(matches!(open(near, &peer(), 0).await, Err(RelayError::Silent)));
}

#[tokio::test]
async fn nothing_is_read_ahead_without_end_while_nobody_takes_it() {
    let (near, far) = duplex(64 * 1024);
    let mut far = Far::new(far);
    let text = "x".repeat(100_000);
    let written = Arc::new(Mutex::new(0usize));
    let counter = written.clone();
    let writer = tokio::spawn(async move {
        far.greet(KEY).await.unwrap();
        for seq in 1..=200u64 {
            let line = kiops_events::LineText {
                place: kiops_events::Place::Step(1),
                first: seq,
                at_ms: 0,
                text: text.clone(),
                cut: vec![],
            };
            let event = AgentEvent { attempt: 2, seq, offset_ms: 0, kind: EventKind::Lines(line) };
            let frame = Frame::Event(serde_json::to_vec(&event).unwrap());
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            far.wire.write.write_all(&bytes).await.unwrap();
            *counter.lock().unwrap() += bytes.len();
        }
        far
    });
    let mut conversation = open(Box::new(near), &peer(), 0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ahead = *written.lock().unwrap();
    assert!(ahead < 4 * BATCH_BYTES, "{ahead} bytes were read ahead");
    assert_eq!(read(&mut conversation, 200).await.len(), 200);
    writer.await.unwrap();
}
