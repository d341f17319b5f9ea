//! Writing a log: its pieces, its place in the spool, and putting open pieces together.

use super::rows::{from_json, get, json};
use super::{Conn, Engine, Row, held, int};
use crate::store::log;
use crate::store::*;
use kiops_events::EventKind;
use kiops_events::rows::row_count;
use std::collections::BTreeMap;

impl Engine {
    /// Sealing makes the log small and quick to read; where it fails, the log is whole all the same and the next append
    /// or the release tries again.
    pub(super) async fn seal_or_warn(&self, id: &BuildId) {
        if let Err(error) = self.seal(id).await {
            tracing::warn!(build = %id, %error, "a log's open pieces were not sealed");
        }
    }

    /// Puts the open pieces of a log together into compressed ones. Changes nothing that a reader sees, so it needs no
    /// lease; whoever comes second finds the pieces gone and leaves it at that.
    async fn seal(&self, id: &BuildId) -> Result<()> {
        let rows = sqlx::query(
            "SELECT first_pos, last_pos, first_row, payload_bytes, body FROM log_pieces \
             WHERE build_id = $1 AND sealed = 0 ORDER BY first_pos",
        )
        .bind(id.as_str())
        .fetch_all(&self.readers)
        .await?;
        let mut runs: Vec<OpenRun> = Vec::new();
        for row in &rows {
            let (first_pos, last_pos): (i64, i64) = (get(row, "first_pos")?, get(row, "last_pos")?);
            let entries = log::unpack(&get::<Vec<u8>>(row, "body")?).map_err(anyhow::Error::from)?;
            let bytes: i64 = get(row, "payload_bytes")?;
            match runs.last_mut() {
                // Big batches are sealed when they arrive, so open pieces need not lie side by side.
                Some(run) if run.last_pos + 1 == first_pos => {
                    run.last_pos = last_pos;
                    run.pieces += 1;
                    run.bytes += bytes;
                    run.entries.extend(entries);
                }
                _ => runs.push(OpenRun {
                    first_pos,
                    last_pos,
                    first_row: get(row, "first_row")?,
                    pieces: 1,
                    bytes,
                    entries,
                }),
            }
        }
        drop(rows);
        for run in runs {
            let pieces = log::pack(&run.entries, true).map_err(anyhow::Error::from)?;
            let mut tx = self.write(Priority::Logs).await?;
            // First the progress, as in an append: two transactions that lock in one order never wait for one another.
            sqlx::query(
                "UPDATE build_progress SET open_pieces = open_pieces - $2, open_bytes = open_bytes - $3 \
                 WHERE build_id = $1",
            )
            .bind(id.as_str())
            .bind(run.pieces)
            .bind(run.bytes)
            .execute(tx.conn())
            .await?;
            let gone = sqlx::query(
                "DELETE FROM log_pieces WHERE build_id = $1 AND sealed = 0 AND first_pos >= $2 AND last_pos <= $3",
            )
            .bind(id.as_str())
            .bind(run.first_pos)
            .bind(run.last_pos)
            .execute(tx.conn())
            .await?;
            if gone.rows_affected() != run.pieces as u64 {
                continue;
            }
            let mut size = LogSize { rows: run.first_row, open_pieces: 0, open_bytes: 0 };
            for piece in pieces {
                insert_piece(tx.conn(), id, &mut size, &piece).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// Open pieces that lie side by side.
struct OpenRun {
    first_pos: i64,
    last_pos: i64,
    first_row: i64,
    pieces: i64,
    bytes: i64,
    entries: Vec<LogEntry>,
}

/// A log's place in its spool.
#[derive(PartialEq)]
pub(super) struct Place {
    pub(super) pos: u64,
    pub(super) attempt: u32,
    pub(super) seq: u64,
    pub(super) chain_count: u64,
    pub(super) chain_hash: String,
}

impl Place {
    pub(super) fn of(progress: &Progress) -> Self {
        Self {
            pos: progress.pos,
            attempt: progress.attempt,
            seq: progress.seq,
            chain_count: progress.chain_count,
            chain_hash: progress.chain_hash.clone(),
        }
    }

    pub(super) fn from_row(row: &Row) -> Result<Self> {
        let number = |name| get::<i64>(row, name);
        Ok(Self {
            pos: number("pos")? as u64,
            attempt: number("attempt")? as u32,
            seq: number("seq")? as u64,
            chain_count: number("chain_count")? as u64,
            chain_hash: get(row, "chain_hash")?,
        })
    }
}

/// What a log holds so far.
#[derive(Clone, Copy)]
pub struct LogSize {
    pub(super) rows: i64,
    pub(super) open_pieces: i64,
    pub(super) open_bytes: i64,
}

/// An append as it is written: everything that takes time is done before anybody waits for the transaction.
pub struct Packed {
    id: BuildId,
    epoch: i64,
    /// Where the log must stand.
    after: u64,
    empty: bool,
    pub pieces: Vec<log::Piece>,
    place: Place,
    pub view: String,
    status: Option<BuildStatus>,
    snapshot: Option<String>,
}

impl Packed {
    pub(super) fn of(id: &BuildId, epoch: i64, append: &Append) -> Result<Self> {
        let Append { entries, progress, status, snapshot } = append;
        if entries.last().is_some_and(|last| last.pos != progress.pos) {
            return Err(anyhow::anyhow!("an append must lead to the position of its last entry").into());
        }
        Ok(Self {
            id: id.clone(),
            epoch,
            after: entries.first().map_or(progress.pos, |first| first.pos.wrapping_sub(1)),
            empty: entries.is_empty(),
            pieces: log::pack(entries, false).map_err(anyhow::Error::from)?,
            place: Place::of(progress),
            view: json(&progress.view)?,
            status: *status,
            snapshot: snapshot.as_ref().map(json).transpose()?,
        })
    }

    /// Within a transaction. Nothing is written before it is clear that the append belongs there.
    pub async fn put(&self, conn: &mut Conn) -> Result<LogSize> {
        let now_at = held(conn, &self.id, self.epoch).await?;
        let stored = stored_progress(conn, &self.id).await?;
        if !self.empty && stored.place == self.place {
            // The same append again: its answer was lost, the transaction was not.
            return Ok(stored.size);
        }
        if self.after != stored.place.pos {
            return Err(StoreError::Conflict);
        }
        let mut grown = stored.size;
        for piece in &self.pieces {
            insert_piece(conn, &self.id, &mut grown, piece).await?;
        }
        write_progress(conn, &self.id, &self.place, &grown, &self.view).await?;
        if let Some(status) = self.status.filter(|s| !s.is_final() && s.rank() > now_at.rank()) {
            sqlx::query("UPDATE builds SET status = $2 WHERE id = $1")
                .bind(self.id.as_str())
                .bind(status.as_str())
                .execute(&mut *conn)
                .await?;
        }
        if let Some(snapshot) = &self.snapshot {
            sqlx::query("UPDATE builds SET snapshot = $2 WHERE id = $1")
                .bind(self.id.as_str())
                .bind(snapshot)
                .execute(&mut *conn)
                .await?;
        }
        Ok(grown)
    }
}

pub(super) struct Stored {
    pub(super) place: Place,
    pub(super) size: LogSize,
}

pub(super) async fn stored_progress(conn: &mut Conn, id: &BuildId) -> Result<Stored> {
    let row = sqlx::query(concat!(
        "SELECT pos, attempt, seq, chain_count, chain_hash, row_count, open_pieces, open_bytes FROM build_progress \
         WHERE build_id = $1",
        for_update!()
    ))
    .bind(id.as_str())
    .fetch_one(conn)
    .await?;
    Ok(Stored {
        place: Place::from_row(&row)?,
        size: LogSize {
            rows: get(&row, "row_count")?,
            open_pieces: get(&row, "open_pieces")?,
            open_bytes: get(&row, "open_bytes")?,
        },
    })
}

pub(super) async fn write_progress(
    conn: &mut Conn,
    id: &BuildId,
    place: &Place,
    size: &LogSize,
    view: &str,
) -> Result<()> {
    sqlx::query(
        "UPDATE build_progress SET pos = $2, attempt = $3, seq = $4, chain_count = $5, chain_hash = $6, \
         row_count = $7, open_pieces = $8, open_bytes = $9, view = $10 WHERE build_id = $1",
    )
    .bind(id.as_str())
    .bind(int(place.pos))
    .bind(i64::from(place.attempt))
    .bind(int(place.seq))
    .bind(int(place.chain_count))
    .bind(&place.chain_hash)
    .bind(size.rows)
    .bind(size.open_pieces)
    .bind(size.open_bytes)
    .bind(view)
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a piece at the log's end and counts it in.
async fn insert_piece(conn: &mut Conn, id: &BuildId, size: &mut LogSize, piece: &log::Piece) -> Result<()> {
    let rows = int(piece.row_count);
    sqlx::query(
        "INSERT INTO log_pieces (build_id, first_pos, last_pos, first_row, row_count, payload_bytes, sealed, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.as_str())
    .bind(int(piece.first_pos))
    .bind(int(piece.last_pos))
    .bind(size.rows)
    .bind(rows)
    .bind(int(piece.payload_bytes))
    .bind(i64::from(piece.sealed))
    .bind(&piece.body[..])
    .execute(conn)
    .await?;
    size.rows += rows;
    if !piece.sealed {
        size.open_pieces += 1;
        size.open_bytes += int(piece.payload_bytes);
    }
    Ok(())
}

/// The server's own word on a build that nobody holds.
pub(super) async fn append_note(conn: &mut Conn, id: &BuildId, now: i64, code: &str) -> Result<()> {
    let view = sqlx::query("SELECT view FROM build_progress WHERE build_id = $1")
        .bind(id.as_str())
        .fetch_one(&mut *conn)
        .await?;
    let mut view: BuildView = from_json(&view, "view")?;
    let Stored { mut place, mut size } = stored_progress(conn, id).await?;
    let note = EventKind::Note { code: code.to_owned(), args: BTreeMap::new() };
    for piece in note_piece(&mut place, &mut view, &note, now, false)? {
        insert_piece(conn, id, &mut size, &piece).await?;
    }
    write_progress(conn, id, &place, &size, &json(&view)?).await
}

/// Takes a finished build's log away from its readers, all at once: what they find from now on is one note that says so.
/// The pieces themselves are deleted afterwards.
pub(super) async fn replace_log(conn: &mut Conn, id: &str, now: i64, days: u32) -> Result<()> {
    let id: BuildId = id.parse().map_err(anyhow::Error::from)?;
    let Stored { mut place, .. } = stored_progress(conn, &id).await?;
    let row = sqlx::query("SELECT view FROM build_progress WHERE build_id = $1")
        .bind(id.as_str())
        .fetch_one(&mut *conn)
        .await?;
    // A view that cannot be read must not keep the log for ever.
    let mut view: BuildView = from_json(&row, "view").unwrap_or_default();
    view.without_log();
    let args = BTreeMap::from([("days".to_owned(), days.to_string())]);
    let note = EventKind::Note { code: "log_removed".to_owned(), args };
    let mut size = LogSize { rows: 0, open_pieces: 0, open_bytes: 0 };
    for piece in note_piece(&mut place, &mut view, &note, now, true)? {
        insert_piece(conn, &id, &mut size, &piece).await?;
    }
    write_progress(conn, &id, &place, &size, &json(&view)?).await?;
    sqlx::query("UPDATE build_progress SET log_from = $2 WHERE build_id = $1")
        .bind(id.as_str())
        .bind(int(place.pos))
        .execute(conn)
        .await?;
    Ok(())
}

/// A note of the server's own at the next position, folded in.
fn note_piece(
    place: &mut Place,
    view: &mut BuildView,
    note: &EventKind,
    now: i64,
    sealed: bool,
) -> Result<Vec<log::Piece>> {
    place.pos += 1;
    view.apply(place.pos, place.attempt, 0, note);
    let entry = LogEntry {
        pos: place.pos,
        attempt: place.attempt,
        seq: 0,
        at_ms: now,
        rows: row_count(note),
        payload: serde_json::to_vec(note).map_err(anyhow::Error::from)?,
    };
    Ok(log::pack(&[entry], sealed).map_err(anyhow::Error::from)?)
}
