//! The converter on recordings of the real buildctl 0.32.2, and on made-up records for what a recording does not show.
//!
//! `KIOPS_UPDATE_GOLDEN=1 cargo test -p kiops-events --features native` writes the expected files anew; read the
//! difference before it is committed.
#![cfg(feature = "native")]

use kiops_events::event::{EventKind, Interval, MAX_LINE_BYTES, Outcome, Phase, Place};
use kiops_events::rawjson::{Converter, Filter, NoFilter};
use kiops_events::rows::write_rows;
use serde_json::json;
use std::path::PathBuf;

/// 2026-11-23T15:13:09Z, a moment before the recordings.
const BASE_NS: i64 = 1_795_446_789_000_000_000;

/// `cached_elsewhere`: the cache is another daemon's, in a registry, and one step's layers are needed.
const RECORDINGS: [&str; 6] = ["success", "cached", "cached_elsewhere", "failure", "dockerfile_error", "cancelled"];

fn converter() -> Converter {
    Converter::new(BASE_NS, Box::new(|| Box::new(NoFilter)))
}

fn convert(input: &[u8], chunk: usize) -> Vec<EventKind> {
    let mut converter = converter();
    let mut out = Vec::new();
    for piece in input.chunks(chunk) {
        converter.feed(piece, 1000, &mut out);
    }
    converter.finish(2000, &mut out);
    out
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/rawjson")
}

#[test]
fn recordings_of_buildctl_convert_as_they_did() {
    for name in RECORDINGS {
        let input = std::fs::read(folder().join(format!("{name}.raw"))).unwrap();
        let events = convert(&input, usize::MAX);
        let mut text = String::new();
        for event in &events {
            write_rows(event, |row| text.push_str(&(row.to_text() + "\n")));
        }
        let json: String = events.iter().map(|e| serde_json::to_string(e).unwrap() + "\n").collect();
        for (extension, now) in [("events", json), ("txt", text)] {
            let path = folder().join(format!("{name}.{extension}"));
            if std::env::var_os("KIOPS_UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, &now).unwrap();
            }
            let wanted = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(wanted == now, "{} differs; it is now:\n{now}", path.display());
        }
    }
}

/// Without what depends on how much arrives at once: which lines share an event, and held ends.
fn shape(events: &[EventKind]) -> Vec<String> {
    let mut rows = Vec::new();
    for event in events {
        write_rows(event, |row| rows.push((row.place, row.text, row.line)));
    }
    let mut out: Vec<String> = rows.into_iter().map(|r| format!("{r:?}")).collect();
    out.sort();
    out
}

#[test]
fn the_size_of_the_pieces_does_not_matter() {
    for name in RECORDINGS {
        let input = std::fs::read(folder().join(format!("{name}.raw"))).unwrap();
        let whole = shape(&convert(&input, usize::MAX));
        for chunk in [1, 7, 1000, 4096] {
            assert_eq!(shape(&convert(&input, chunk)), whole, "{name} in chunks of {chunk}");
        }
    }
}

/// Builds records with times in milliseconds after the base.
struct Script(Vec<u8>);

impl Script {
    fn new() -> Self {
        Self(Vec::new())
    }
    fn push(mut self, record: serde_json::Value) -> Self {
        self.0.extend_from_slice(record.to_string().as_bytes());
        self.0.push(b'\n');
        self
    }
    fn vertex(self, digest: &str, started: Option<u32>, completed: Option<u32>, more: serde_json::Value) -> Self {
        self.push(json!({ "vertexes": [vertex(digest, started, completed, more)] }))
    }
    fn log(self, digest: &str, stream: u8, at: u32, data: &[u8]) -> Self {
        use base64::Engine;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        self.push(json!({"logs": [{"vertex": digest, "stream": stream, "data": data, "timestamp": time(at)}]}))
    }
    fn status(self, digest: &str, id: &str, at: u32, current: u64, completed: bool) -> Self {
        let mut status = json!({"id": id, "vertex": digest, "current": current, "total": 100, "timestamp": time(at),
            "started": time(0)});
        if completed {
            status["completed"] = time(at).into();
        }
        self.push(json!({ "statuses": [status] }))
    }
    fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }
    fn events(&self) -> Vec<EventKind> {
        convert(&self.0, usize::MAX)
    }
}

fn time(ms: u32) -> String {
    format!("2026-11-23T15:13:{:02}.{:03}Z", 9 + ms / 1000, ms % 1000)
}

fn vertex(digest: &str, started: Option<u32>, completed: Option<u32>, more: serde_json::Value) -> serde_json::Value {
    let mut vertex = json!({"digest": digest, "name": format!("step {digest}")});
    if let Some(ms) = started {
        vertex["started"] = time(ms).into();
    }
    if let Some(ms) = completed {
        vertex["completed"] = time(ms).into();
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        vertex[key] = value.clone();
    }
    vertex
}

fn brief(events: &[EventKind]) -> Vec<String> {
    events
        .iter()
        .map(|e| match e {
            EventKind::StepAnnounced { digest, .. } => format!("announced {digest}"),
            EventKind::StepStarted { step, name, start_ms, .. } => format!("started {step} {name} at {start_ms}"),
            EventKind::StepEnded { step, outcome, intervals, error } => {
                let intervals: Vec<_> = intervals.iter().map(|i| (i.start_ms, i.end_ms)).collect();
                format!("ended {step} {outcome:?} {intervals:?} {}", error.as_deref().unwrap_or(""))
            }
            EventKind::Lines(l) => format!("lines {:?} from {}: {:?}", l.place, l.first, l.text),
            EventKind::Transfer { step, id, current, done_ms, .. } => {
                format!("transfer {step} {id} {current} {done_ms:?}")
            }
            EventKind::PhaseEntered { phase } => format!("phase {phase:?}"),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_step_is_announced_without_and_started_with_a_number() {
    let script = Script::new()
        .vertex("b", None, None, json!({}))
        .vertex("a", Some(10), None, json!({}))
        .vertex("b", Some(20), None, json!({}))
        .vertex("b", None, None, json!({}))
        .vertex("b", Some(20), Some(30), json!({"cached": true}))
        .vertex("a", Some(10), Some(40), json!({"error": "process did not complete successfully: exit code: 1"}));
    assert_eq!(
        brief(&script.events()),
        [
            "announced b",
            "started 1 step a at 10",
            "started 2 step b at 20",
            "ended 1 Error [(10, 40)] process did not complete successfully: exit code: 1",
            "ended 2 Cached [(20, 30)] ",
        ]
    );
}

#[test]
fn a_step_that_goes_on_at_once_has_not_ended() {
    let script = Script::new()
        .vertex("a", Some(10), Some(11), json!({}))
        .vertex("a", Some(12), None, json!({}))
        .vertex("a", Some(12), Some(20), json!({}))
        .vertex("b", Some(21), Some(22), json!({}));
    assert_eq!(
        brief(&script.events()),
        [
            "started 1 step a at 10",
            "ended 1 Done [(10, 11), (12, 20)] ",
            "started 2 step b at 21",
            "ended 2 Done [(21, 22)] "
        ]
    );
}

#[test]
fn a_step_that_goes_on_later_starts_again_under_its_number() {
    let mut converter = converter();
    let mut out = Vec::new();
    let script = Script::new().vertex("a", Some(10), Some(20), json!({}));
    converter.feed(&script.0, 20, &mut out);
    assert_eq!(converter.due_ms(), Some(120));
    converter.tick(119, &mut out);
    assert_eq!(out.len(), 1);
    converter.tick(120, &mut out);
    assert_eq!(converter.due_ms(), None);
    let script = Script::new().vertex("a", Some(300), None, json!({})).vertex("a", Some(300), Some(400), json!({}));
    converter.feed(&script.0, 400, &mut out);
    converter.finish(500, &mut out);
    assert_eq!(
        brief(&out),
        [
            "started 1 step a at 10",
            "ended 1 Done [(10, 20)] ",
            "started 1 step a at 300",
            "ended 1 Done [(10, 20), (300, 400)] "
        ]
    );
}

#[test]
fn what_failed_stays_failed_when_its_second_try_is_cut_off() {
    let failed = || Script::new().vertex("a", Some(10), Some(20), json!({ "error": "no such file" }));
    let again = "started 1 step a at 30";
    let first = ["started 1 step a at 10", "ended 1 Error [(10, 20)] no such file"];
    // The failure itself ends the second try, before or after its end could be written.
    let cut_off = failed().vertex("a", Some(30), None, json!({}));
    let ended = cut_off.events();
    assert_eq!(brief(&ended)[..2], first);
    assert_eq!(brief(&ended)[2..], [again, "ended 1 Error [(10, 20), (30, 2000)] no such file"]);
    let canceled = failed().vertex("a", Some(30), Some(40), json!({ "error": "context canceled" }));
    assert_eq!(brief(&canceled.events()).last().unwrap(), "ended 1 Error [(10, 20), (30, 40)] no such file");
    // A second try that works is the end of it.
    let mended = failed().vertex("a", Some(30), None, json!({})).vertex("a", Some(30), Some(40), json!({}));
    assert_eq!(brief(&mended.events()).last().unwrap(), "ended 1 Done [(10, 20), (30, 40)] ");
}

#[test]
fn cached_may_come_late_and_overlapping_work_is_merged() {
    let mut converter = converter();
    let mut out = Vec::new();
    converter.feed(&Script::new().vertex("a", Some(10), Some(20), json!({})).0, 20, &mut out);
    converter.tick(1000, &mut out);
    let late = Script::new().vertex("a", Some(15), Some(30), json!({"cached": true}));
    converter.feed(&late.0, 1000, &mut out);
    converter.finish(2000, &mut out);
    assert_eq!(brief(&out), ["started 1 step a at 10", "ended 1 Done [(10, 20)] ", "ended 1 Cached [(10, 30)] "]);
}

#[test]
fn a_group_is_one_step_and_a_weak_one_is_not_shown() {
    let group = |weak: bool| json!({"progressGroup": {"id": "g", "name": "the group", "weak": weak}});
    let script = Script::new()
        .vertex("w", Some(1), Some(2), group(true))
        .vertex("m1", Some(10), None, group(false))
        .log("m1", 1, 12, b"one\n")
        .vertex("m2", Some(15), Some(30), json!({"cached": true, "progressGroup": group(false)["progressGroup"]}))
        .log("m2", 1, 20, b"two\n")
        .vertex("m1", Some(10), Some(40), group(false));
    assert_eq!(
        brief(&script.events()),
        ["started 1 the group at 10", "lines Step(1) from 1: \"one\\ntwo\"", "ended 1 Done [(1, 2), (10, 40)] ",]
    );
}

#[test]
fn output_is_put_together_across_pieces_and_streams() {
    let half = "가".as_bytes();
    let script = Script::new()
        .vertex("a", Some(10), None, json!({}))
        .log("a", 1, 20, &half[..1])
        .log("a", 1, 20, &half[1..])
        .log("a", 2, 30, b" err\nopen")
        .log("a", 1, 40, b" end\n\x00\xff\n")
        .log("a", 1, 900, b"late\nrest")
        .vertex("a", Some(10), Some(1000), json!({}));
    assert_eq!(
        brief(&script.events()),
        [
            "started 1 step a at 10",
            "lines Step(1) from 1: \"가 err\\nopen end\\n\u{FFFD}\u{FFFD}\"",
            "lines Step(1) from 4: \"late\"",
            "lines Step(1) from 5: \"rest\"",
            "ended 1 Done [(10, 1000)] ",
        ]
    );
}

#[test]
fn the_end_of_a_step_waits_for_output_that_needs_several_records() {
    // As BuildKit does it: the news are in the first record, the rest of the output comes one by one, then an empty record.
    let log = |data: &[u8]| {
        use base64::Engine;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        json!({"vertex": "a", "stream": 1, "data": data, "timestamp": time(20)})
    };
    let warning = json!({"vertex": "a", "short": "dw=="});
    let line = "x".repeat(1023) + "\n";
    let many = log((line.repeat(1024) + "cut").as_bytes());
    let first = json!({
        "vertexes": [vertex("a", Some(10), Some(30), json!({})), vertex("b", Some(31), None, json!({}))],
        "statuses": [{"id": "s", "vertex": "b", "current": 1, "timestamp": time(32), "started": time(31)}],
        "logs": [many], "warnings": [warning]});
    let script = Script::new()
        .vertex("a", Some(10), None, json!({}))
        .push(first)
        .push(json!({"logs": [log(b" in two\nand")], "warnings": [warning]}))
        .push(json!({"logs": [log(b" on\n")], "warnings": [warning]}));
    let closed = [
        &[script.0.clone(), b"{}\n".to_vec()].concat()[..],
        &[script.0.clone(), format!("{}\n", json!({"vertexes": [vertex("b", Some(31), Some(40), json!({}))]})).into()]
            .concat(),
        &script.0,
    ];
    for input in closed {
        let events = brief(&convert(input, 5000));
        let lines: Vec<&String> = events.iter().filter(|e| e.starts_with("lines")).collect();
        assert!(lines.last().unwrap().contains("and on"), "{:?}", lines.last());
        assert!(lines.iter().any(|l| l.contains("cut in two")));
        let at =
            |wanted: &str| events.iter().position(|e| e.starts_with(wanted)).unwrap_or_else(|| panic!("no {wanted}"));
        assert!(at("ended 1") > events.iter().rposition(|e| e.starts_with("lines")).unwrap());
        assert!(at("ended 1") < at("started 2") && at("started 2") < at("transfer 2"));
        assert_eq!(events.iter().filter(|e| e.starts_with("Warning")).count(), 1);
    }
    // Should the closing record never come, the news are told all the same.
    let (mut converter, mut out) = (converter(), Vec::new());
    converter.feed(&script.0, 100, &mut out);
    assert_eq!(converter.due_ms(), Some(2100));
    converter.tick(2100, &mut out);
    assert!(brief(&out).iter().any(|e| e.starts_with("started 2")));
}

#[test]
fn output_of_a_step_nobody_announced_is_not_lost() {
    let script = Script::new().log("x", 1, 50, b"hello\n").vertex("x", Some(40), Some(60), json!({}));
    assert_eq!(
        brief(&script.events()),
        ["started 1 x at 50", "lines Step(1) from 1: \"hello\"", "ended 1 Done [(40, 60)] "]
    );
}

#[test]
fn transfers_are_told_twice_a_second_and_at_their_end() {
    let mut script = Script::new().vertex("a", Some(0), None, json!({}));
    for at in (0..1000).step_by(10) {
        script = script.status("a", "pushing layers", at, u64::from(at), false);
    }
    script = script.status("a", "pushing layers", 1010, 100, true).status("a", "pushing layers", 1020, 100, true);
    assert_eq!(
        brief(&script.events())[1..],
        [
            "phase Push",
            "transfer 1 pushing layers 0 None",
            "transfer 1 pushing layers 500 None",
            "transfer 1 pushing layers 100 Some(1010)",
            "ended 1 Canceled [(0, 2000)] ",
        ]
    );
}

#[test]
fn what_is_no_record_is_text() {
    let script = Script::new()
        .vertex("a", Some(0), Some(1), json!({}))
        .text("Dockerfile:3\n--------\n{\"errors\":[1]}\n{broken\n{}\nerror: failed {\"vertexes\":[]}");
    for chunk in [1, 5, usize::MAX] {
        let lines: Vec<String> = convert(&script.0, chunk)
            .iter()
            .filter_map(|e| match e {
                EventKind::Lines(l) if l.place == Place::Phase(Phase::Buildctl) => Some(l.text.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(
            lines.join("\n"),
            "Dockerfile:3\n--------\n{\"errors\":[1]}\n{broken\nerror: failed {\"vertexes\":[]}",
            "in chunks of {chunk}"
        );
    }
}

#[test]
fn a_cut_off_stream_leaves_no_step_open_and_no_line_behind() {
    let script = Script::new()
        .vertex("a", Some(10), None, json!({}))
        .log("a", 1, 20, b"unfinished")
        .text("{\"vertexes\":[{\"dig");
    assert_eq!(
        brief(&script.events()),
        [
            "started 1 step a at 10",
            "lines Step(1) from 1: \"unfinished\"",
            "ended 1 Canceled [(10, 2000)] ",
            "lines Phase(Buildctl) from 1: \"{\\\"vertexes\\\":[{\\\"dig\"",
        ]
    );
}

#[test]
fn stage_and_position_come_from_the_name() {
    for (name, stage, index, total) in [
        ("[builder 3/4] RUN npm ci", Some("builder"), Some(3), Some(4)),
        ("[ 2/10] COPY . .", None, Some(2), Some(10)),
        ("[linux/amd64 builder  2/4] RUN x", Some("linux/amd64 builder"), Some(2), Some(4)),
        ("[internal] load .dockerignore", None, None, None),
        ("[auth] a/b:pull,push token for host", None, None, None),
        ("exporting to image", None, None, None),
    ] {
        let script = Script::new().vertex("a", Some(1), None, json!({ "name": name }));
        let EventKind::StepStarted { stage: s, index: i, total: t, name: n, .. } = &script.events()[0] else {
            panic!("not started")
        };
        assert_eq!((s.as_deref(), *i, *t, n.as_str()), (stage, index, total, name));
    }
}

#[test]
fn warnings_keep_their_texts_and_hostile_sizes_are_clipped() {
    let script = Script::new()
        .vertex("a", Some(1), Some(2), json!({ "name": "n".repeat(1_000_000), "error": "e".repeat(1_000_000) }))
        .push(json!({"warnings": [{"vertex": "a", "level": 1, "short": "c2hvcnQ=", "detail": ["b25l", "dHdv"],
            "url": "https://docs/x", "sourceInfo": {"filename": "Dockerfile"}}]}));
    let events = script.events();
    assert!(events.iter().all(|e| serde_json::to_vec(e).unwrap().len() < 100_000));
    assert!(matches!(&events[1], EventKind::StepEnded { outcome: Outcome::Error, .. }));
    assert_eq!(
        events[2],
        EventKind::Warning {
            step: Some(1),
            short: "short".into(),
            detail: vec!["one".into(), "two".into()],
            url: Some("https://docs/x".into())
        }
    );
}

#[test]
fn times_are_read_with_any_zone_and_precision() {
    for (started, wanted) in [
        ("2026-11-23T15:13:09.5Z", 500),
        ("2026-11-23T15:13:10Z", 1000),
        ("2026-11-24T00:13:09.123456789+09:00", 123),
        ("2026-11-23T09:43:09.25-05:30", 250),
    ] {
        let script = Script::new().vertex("a", None, None, json!({ "started": started, "completed": started }));
        let EventKind::StepEnded { intervals, .. } = &script.events()[1] else { panic!("not ended: {started}") };
        assert_eq!(intervals[0], Interval { start_ms: wanted, end_ms: wanted }, "{started}");
    }
    // What is no time leaves the step waiting and takes nothing down.
    for bad in ["", "now", "2026-11-23", "2026-11-23T15:13:09", "20x6-11-23T15:13:09Z"] {
        let script = Script::new().vertex("a", None, None, json!({ "started": bad }));
        assert!(matches!(script.events()[..], [EventKind::StepAnnounced { .. }] | []), "{bad}");
    }
}

#[test]
fn output_passes_a_filter_of_its_own_per_stream() {
    /// Shows what it got, whole, when its stream ends.
    struct Late(Vec<u8>);
    impl Filter for Late {
        fn pass(&mut self, bytes: &[u8], _: &mut Vec<u8>) {
            self.0.extend_from_slice(bytes);
        }
        fn end(&mut self, out: &mut Vec<u8>) {
            out.append(&mut self.0);
        }
    }
    let mut converter = Converter::new(BASE_NS, Box::new(|| Box::new(Late(Vec::new()))));
    let script = Script::new()
        .vertex("a", Some(1), None, json!({}))
        .log("a", 1, 2, b"out")
        .log("a", 2, 2, b"err")
        .log("a", 1, 3, b"put\n")
        .vertex("a", Some(1), Some(5), json!({}))
        .text("plain");
    let mut out = Vec::new();
    converter.feed(&script.0, 0, &mut out);
    converter.finish(10, &mut out);
    assert_eq!(
        brief(&out)[1..],
        ["lines Step(1) from 1: \"output\\nerr\"", "ended 1 Done [(1, 5)] ", "lines Phase(Buildctl) from 1: \"plain\""]
    );
}

#[test]
fn a_line_longer_than_the_limit_is_cut_in_a_step_too() {
    let script = Script::new()
        .vertex("a", Some(1), None, json!({}))
        .log("a", 1, 2, &vec![b'x'; MAX_LINE_BYTES * 2 + 1000])
        .vertex("a", Some(1), Some(5), json!({}));
    let cut: Vec<(u64, usize, Vec<u32>)> = script
        .events()
        .iter()
        .filter_map(|e| match e {
            EventKind::Lines(l) => Some((l.first, l.text.len(), l.cut.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(cut, [(1, 2 * MAX_LINE_BYTES + 1, vec![0, 1]), (3, 1000, vec![])]);
}
