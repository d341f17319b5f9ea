//! Which rows are drawn while lines are wrapped. Nobody knows how high a wrapped row is before it is drawn, so a block of
//! rows around what is in sight stands in the box as it is, scrolled by the browser itself; the rows before and after it
//! are empty space of about their height. Pure arithmetic.

use super::window::MAX_HEIGHT;

/// The rows that are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub first: u64,
    pub count: u64,
}

impl Block {
    /// Around a view whose first row is `top` and that shows at most `visible` rows: a view before it and one and a half
    /// after it, so that small moves need no other block.
    pub fn around(top: u64, visible: u64, total: u64) -> Self {
        let first = top.min(total.saturating_sub(visible)).saturating_sub(visible);
        Self { first, count: (visible * 7 / 2).min(total - first) }
    }

    /// Whether half a view more than what is in sight is drawn, on either side.
    pub fn covers(&self, top: u64, visible: u64, total: u64) -> bool {
        let from = top.saturating_sub(visible / 2);
        let to = (top + visible * 3 / 2).min(total);
        (self.first <= from || self.first == 0) && self.end() >= to && self.end() <= total
    }

    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    /// Height of the empty space before and after, with rows of about `row_px`.
    pub fn space(&self, total: u64, row_px: f64) -> (f64, f64) {
        let unit = unit(total, row_px);
        (self.first as f64 * unit, total.saturating_sub(self.end()) as f64 * unit)
    }

    /// The row that the empty space has in the place of a point `above` pixels above the block, or as much below it.
    pub fn guess(&self, total: u64, row_px: f64, above: f64) -> u64 {
        let rows = above / unit(total, row_px);
        if rows >= 0.0 {
            self.first.saturating_sub(rows.ceil() as u64)
        } else {
            (self.end() + (-rows).floor() as u64).min(total.saturating_sub(1))
        }
    }
}

/// A very long log is pressed together where it is empty.
fn unit(total: u64, row_px: f64) -> f64 {
    row_px.min(MAX_HEIGHT / total.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_covers_what_it_was_made_for() {
        for total in [0, 1, 30, 31, 100, 1_000, 10_000_000] {
            for top in [0, 1, 15, 29, 60, 99, 500, 999, 9_999_999].into_iter().filter(|top| *top <= total) {
                let block = Block::around(top, 30, total);
                assert!(block.covers(top, 30, total), "{top} of {total}: {block:?}");
                assert!(block.count <= 105 && block.end() <= total);
                assert!((top..(top + 30).min(total)).all(|row| (block.first..block.end()).contains(&row)));
            }
        }
    }

    #[test]
    fn it_is_left_before_its_border_is_seen() {
        let block = Block::around(1_000, 30, 5_000);
        assert_eq!(block, Block { first: 970, count: 105 });
        assert!(block.covers(985, 30, 5_000) && !block.covers(984, 30, 5_000));
        assert!(block.covers(1_030, 30, 5_000) && !block.covers(1_031, 30, 5_000));
        // New rows behind the last one have to be drawn.
        let end = Block::around(4_970, 30, 5_000);
        assert!(end.covers(4_970, 30, 5_000) && !end.covers(4_970, 30, 5_010));
    }

    #[test]
    fn the_space_stands_for_the_rows_that_are_not_drawn() {
        let block = Block { first: 100, count: 50 };
        assert_eq!(block.space(1_000, 30.0), (3_000.0, 25_500.0));
        assert_eq!(block.guess(1_000, 30.0, 3_000.0), 0);
        assert_eq!(block.guess(1_000, 30.0, 1.0), 99);
        assert_eq!(block.guess(1_000, 30.0, -30.0), 151);
        assert_eq!(block.guess(1_000, 30.0, -99_999.0), 999);
        let (above, below) = Block { first: 5_000_000, count: 50 }.space(10_000_000, 40.0);
        assert!(above + below <= MAX_HEIGHT);
    }
}
