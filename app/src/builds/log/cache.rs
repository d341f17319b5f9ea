//! The rows that the page holds: blocks of 200, the least recently seen let go. Never the whole log, however many rows
//! it has and however long they are.

use crate::model::{RowsPage, row_bytes};
use kiops_events::Row;
use std::sync::Arc;

pub const BLOCK: u64 = 200;
const MAX_BLOCKS: usize = 40;
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What is in sight is never let go.
const MIN_BLOCKS: usize = 4;

type Block = Vec<Option<Arc<Row>>>;

#[derive(Default)]
pub struct Cache {
    /// The most recently used last.
    blocks: Vec<(u64, Block)>,
    bytes: usize,
}

impl Cache {
    pub fn put(&mut self, page: RowsPage) {
        for (row, content) in (page.first..).zip(page.rows) {
            let place = &mut self.block(row / BLOCK)[(row % BLOCK) as usize];
            // A whole row stays when its beginning comes once more.
            if content.whole_bytes.is_some() && place.as_ref().is_some_and(|known| known.whole_bytes.is_none()) {
                continue;
            }
            let bytes = row_bytes(&content);
            let before = place.replace(Arc::new(content)).map_or(0, |row| row_bytes(&row));
            self.bytes = self.bytes + bytes - before;
        }
        while self.bytes > MAX_BYTES && self.blocks.len() > MIN_BLOCKS {
            self.let_go();
        }
    }

    /// Of the block that was seen the longest ago.
    fn let_go(&mut self) {
        let (_, block) = self.blocks.remove(0);
        self.bytes -= block.iter().flatten().map(|row| row_bytes(row)).sum::<usize>();
    }

    /// The block, made if it is not there, as the most recently used one.
    fn block(&mut self, index: u64) -> &mut Block {
        match self.blocks.iter().rposition(|(i, _)| *i == index) {
            Some(at) if at + 1 == self.blocks.len() => {}
            Some(at) => {
                let found = self.blocks.remove(at);
                self.blocks.push(found);
            }
            None => {
                if self.blocks.len() >= MAX_BLOCKS {
                    self.let_go();
                }
                self.blocks.push((index, vec![None; BLOCK as usize]));
            }
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last].1
    }

    /// The rows of a window, with holes where they are not known, and the blocks they lie in kept alive.
    pub fn window(&mut self, first: u64, count: u64) -> Vec<(u64, Option<Arc<Row>>)> {
        let mut out = Vec::with_capacity(count as usize);
        let mut row = first;
        while row < first + count {
            let end = ((row / BLOCK + 1) * BLOCK).min(first + count);
            let known = self.blocks.iter().any(|(i, _)| *i == row / BLOCK);
            if known {
                let block = self.block(row / BLOCK);
                out.extend((row..end).map(|r| (r, block[(r % BLOCK) as usize].clone())));
            } else {
                out.extend((row..end).map(|r| (r, None)));
            }
            row = end;
        }
        out
    }

    /// The smallest stretch that holds every unknown row of a window.
    pub fn missing(&self, first: u64, count: u64) -> Option<(u64, u64)> {
        let unknown =
            |row: &u64| !self.blocks.iter().any(|(i, b)| *i == row / BLOCK && b[(row % BLOCK) as usize].is_some());
        let from = (first..first + count).find(unknown)?;
        let to = (from..first + count).rev().find(unknown)?;
        Some((from, to - from + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_events::RowKind;

    fn page(first: u64, n: u64) -> RowsPage {
        RowsPage { first, rows: (first..first + n).map(|i| row(i.to_string(), None)).collect(), total: 1_000_000 }
    }

    fn row(text: String, whole_bytes: Option<u64>) -> Row {
        Row { kind: RowKind::Line, place: None, line: None, at_ms: None, text, cut: false, whole_bytes }
    }

    fn texts(cache: &mut Cache, first: u64, n: u64) -> Vec<String> {
        cache.window(first, n).into_iter().map(|(_, r)| r.map_or("-".to_owned(), |r| r.text.clone())).collect()
    }

    #[test]
    fn windows_cross_blocks_and_show_holes() {
        let mut cache = Cache::default();
        cache.put(page(198, 4));
        assert_eq!(texts(&mut cache, 196, 8), ["-", "-", "198", "199", "200", "201", "-", "-"]);
        assert_eq!(cache.missing(196, 8), Some((196, 8)));
        assert_eq!(cache.missing(198, 6), Some((202, 2)));
        assert_eq!(cache.missing(198, 4), None);
        assert_eq!(cache.missing(5_000, 3), Some((5_000, 3)));
    }

    #[test]
    fn the_oldest_block_goes_first_and_a_seen_one_stays() {
        let mut cache = Cache::default();
        for i in 0..MAX_BLOCKS as u64 {
            cache.put(page(i * BLOCK, 1));
        }
        cache.window(0, 1);
        cache.put(page(100 * BLOCK, 1));
        assert_eq!(cache.missing(0, 1), None);
        assert_eq!(cache.missing(BLOCK, 1), Some((BLOCK, 1)));
        assert!(cache.blocks.len() <= MAX_BLOCKS);
    }
    #[test]
    fn long_rows_are_counted_by_their_length() {
        let mut cache = Cache::default();
        let long = |block: u64| RowsPage {
            first: block * BLOCK,
            rows: vec![row("x".repeat(60_000), None); BLOCK as usize / 4],
            total: 1_000_000,
        };
        for block in 0..20 {
            cache.put(long(block));
            cache.put(long(block));
            let held: usize = cache.blocks.iter().flat_map(|(_, b)| b.iter().flatten()).map(|r| row_bytes(r)).sum();
            assert_eq!(cache.bytes, held);
        }
        assert_eq!(cache.blocks.len(), MIN_BLOCKS);
        assert_eq!(cache.missing(19 * BLOCK, 10), None);
    }

    #[test]
    fn a_whole_row_stays_whole() {
        let mut cache = Cache::default();
        let put = |cache: &mut Cache, text: &str, whole| {
            cache.put(RowsPage { first: 7, rows: vec![row(text.to_owned(), whole)], total: 10 });
        };
        put(&mut cache, "begin", Some(9));
        put(&mut cache, "begin-end", None);
        put(&mut cache, "begin", Some(9));
        assert_eq!(texts(&mut cache, 7, 1), ["begin-end"]);
    }
}
