//! Appends of many builds at once. A commit waits for the disk, and there is one writer: those that come while it waits are
//! the next transaction together.

use super::queries::{LogSize, Packed};
use super::{Priority, Writer};
use crate::store::{Result, StoreError};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

/// A click waits for one transaction at most: it should be over in a few milliseconds.
const MOST: usize = 32;
const MOST_BYTES: usize = 1 << 20;

pub(super) struct Appends {
    waiting: UnboundedSender<Waiting>,
    _writing: AbortOnDropHandle<()>,
}

struct Waiting {
    packed: Packed,
    answer: oneshot::Sender<Result<LogSize>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.packed.view.len() + self.packed.pieces.iter().map(|piece| piece.body.len()).sum::<usize>()
    }
}

impl Appends {
    pub(super) fn by(writer: Writer) -> Self {
        // No build has more than one waiting.
        let (waiting, asked) = mpsc::unbounded_channel();
        Self { waiting, _writing: AbortOnDropHandle::new(tokio::spawn(write(writer, asked))) }
    }

    /// Answered when it is on the disk. Who does not wait for the answer cannot take the append back.
    pub(super) async fn put(&self, packed: Packed) -> Result<LogSize> {
        let ended = || StoreError::Other(anyhow::anyhow!("the database is closed"));
        let (answer, answered) = oneshot::channel();
        self.waiting.send(Waiting { packed, answer }).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

async fn write(writer: Writer, mut asked: UnboundedReceiver<Waiting>) {
    let mut group = Vec::new();
    while let Some(first) = asked.recv().await {
        let mut bytes = first.bytes();
        group.push(first);
        while group.len() < MOST
            && bytes < MOST_BYTES
            && let Ok(next) = asked.try_recv()
        {
            bytes += next.bytes();
            group.push(next);
        }
        match together(&writer, &group).await {
            Ok(results) => answer(group.drain(..), results),
            // Whatever is wrong with one of them is not the others' fault.
            Err(_) if group.len() > 1 => {
                for one in group.drain(..) {
                    let result = together(&writer, std::slice::from_ref(&one)).await;
                    let result = result.and_then(|mut results| results.pop().unwrap_or(Err(StoreError::Conflict)));
                    let _ = one.answer.send(result);
                }
            }
            Err(error) => answer(group.drain(..), vec![Err(error)]),
        }
    }
}

fn answer(group: impl Iterator<Item = Waiting>, results: Vec<Result<LogSize>>) {
    for (waiting, result) in group.zip(results) {
        // Who asked may be gone.
        let _ = waiting.answer.send(result);
    }
}

/// One transaction. What does not belong where its log stands is left out of it, and told so.
async fn together(writer: &Writer, group: &[Waiting]) -> Result<Vec<Result<LogSize>>> {
    let mut tx = writer.begin(Priority::Logs).await?;
    let mut results = Vec::with_capacity(group.len());
    for waiting in group {
        match waiting.packed.put(tx.conn()).await {
            Err(StoreError::Conflict) => results.push(Err(StoreError::Conflict)),
            result => results.push(Ok(result?)),
        }
    }
    tx.commit().await?;
    Ok(results)
}
