//! The rows that the page holds: blocks of 200, the least recently seen let go. Never the whole log.

use crate::model::RowsPage;
use kiops_events::Row;
use std::sync::Arc;

pub const BLOCK: u64 = 200;
const MAX_BLOCKS: usize = 40;

type Block = Vec<Option<Arc<Row>>>;

#[derive(Default)]
pub struct Cache {
    /// The most recently used last.
    blocks: Vec<(u64, Block)>,
}

impl Cache {
    pub fn put(&mut self, page: RowsPage) {
        for (row, content) in (page.first..).zip(page.rows) {
            let block = self.block(row / BLOCK);
            block[(row % BLOCK) as usize] = Some(Arc::new(content));
        }
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
                    self.blocks.remove(0);
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
        let row =
            |i: u64| Row { kind: RowKind::Line, place: None, line: None, at_ms: None, text: i.to_string(), cut: false };
        RowsPage { first, rows: (first..first + n).map(row).collect(), total: 1_000_000 }
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
}
