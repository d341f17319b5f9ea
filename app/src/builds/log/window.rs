//! Which rows of a log are in sight while each is a line high; `block` is for wrapped ones. Pure arithmetic: the log may
//! have ten million rows, the page draws a screenful.
//!
//! A box that is `height` high gives the scroll bar its length; what is in sight stands still in it and is drawn anew.
//! Browsers limit how high a box can be, so a very long log is scaled: dragging the bar goes anywhere, while wheel and
//! keys still move row by row.

/// Below every browser's limit (Firefox ends at 17.8 million pixels).
pub const MAX_HEIGHT: f64 = 12_000_000.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    pub total: u64,
    pub row_px: f64,
    /// Height of what can be seen.
    pub view_px: f64,
}

impl Geometry {
    /// Rows that fit, in part counted too.
    pub fn visible(&self) -> u64 {
        (self.view_px / self.row_px).ceil().max(1.0) as u64
    }

    /// The first row in sight when the end is.
    pub fn max_top(&self) -> f64 {
        (self.total as f64 - self.view_px / self.row_px).max(0.0)
    }

    pub fn height(&self) -> f64 {
        (self.total as f64 * self.row_px).min(MAX_HEIGHT)
    }

    pub fn max_scroll(&self) -> f64 {
        (self.height() - self.view_px).max(0.0)
    }

    fn scaled(&self) -> bool {
        self.total as f64 * self.row_px > MAX_HEIGHT
    }

    /// The first row in sight (with its part that is already out of it) at a place of the scroll bar.
    pub fn top_at(&self, scroll: f64) -> f64 {
        let max = self.max_scroll();
        if max <= 0.0 { 0.0 } else { (scroll / max).clamp(0.0, 1.0) * self.max_top() }
    }

    /// The place of the scroll bar that shows `top` first.
    pub fn scroll_at(&self, top: f64) -> f64 {
        let max = self.max_top();
        if max <= 0.0 { 0.0 } else { (top / max).clamp(0.0, 1.0) * self.max_scroll() }
    }

    /// The first row in sight after the scroll bar moved. In a scaled log a small move is one by pixels.
    pub fn moved(&self, top: f64, before: f64, now: f64) -> f64 {
        let by = now - before;
        if self.scaled() && by.abs() <= self.view_px * 1.5 && now > 0.0 && now < self.max_scroll() - 1.0 {
            (top + by / self.row_px).clamp(0.0, self.max_top())
        } else {
            self.top_at(now)
        }
    }

    /// Whether the bar has drifted from where `top` belongs: only in a scaled log, after small moves.
    pub fn drifted(&self, top: f64, scroll: f64) -> bool {
        self.scaled() && (self.scroll_at(top) - scroll).abs() > 2.0
    }

    /// Whether the end is in sight.
    pub fn at_end(&self, top: f64) -> bool {
        top >= self.max_top() - 0.5
    }

    /// First row and number of rows to draw.
    pub fn rows(&self, top: f64) -> (u64, u64) {
        let first = if self.at_end(top) {
            self.total.saturating_sub(self.visible() + 1)
        } else {
            (top.floor().max(0.0) as u64).min(self.total)
        };
        (first, (self.visible() + 1).min(self.total - first))
    }

    /// How far up the drawn rows are moved, in pixels.
    pub fn shift(&self, top: f64) -> f64 {
        if self.at_end(top) { 0.0 } else { (top - top.floor()) * self.row_px }
    }

    /// Puts a row a third from the upper edge.
    pub fn top_for(&self, row: u64) -> f64 {
        (row as f64 - self.view_px / self.row_px / 3.0).floor().clamp(0.0, self.max_top())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(total: u64) -> Geometry {
        Geometry { total, row_px: 20.0, view_px: 610.0 }
    }

    #[test]
    fn a_short_log_does_not_scroll() {
        for total in [0, 1, 30] {
            let g = log(total);
            assert_eq!((g.max_scroll(), g.max_top(), g.top_at(100.0)), (0.0, 0.0, 0.0));
            assert_eq!(g.rows(0.0), (0, total));
            assert!(g.at_end(0.0));
        }
    }

    #[test]
    fn pixels_are_rows_while_the_log_fits() {
        let g = log(100_000);
        for scroll in [0.0, 20.0, 30.0, 1_000_000.0, g.max_scroll()] {
            let top = g.top_at(scroll);
            assert!((top - scroll / 20.0).abs() < 1e-6);
            assert!((g.scroll_at(top) - scroll).abs() < 1e-3);
        }
        assert_eq!((g.rows(1.5), g.shift(1.5)), ((1, 32), 10.0));
        assert_eq!(g.rows(g.max_top()), (99_968, 32));
        assert_eq!(g.moved(0.0, 0.0, 40.0), 2.0);
        assert!(!g.drifted(7.0, 0.0));
    }

    #[test]
    fn every_row_of_a_long_log_can_be_reached() {
        for total in [1_000_000, 10_000_000, 4_000_000_000] {
            let g = log(total);
            assert!(g.height() <= MAX_HEIGHT);
            let (first, count) = g.rows(g.top_at(g.max_scroll()));
            assert_eq!(first + count, total);
            assert_eq!(g.rows(g.top_at(0.0)).0, 0);
            for row in [0, 1, 17, total / 2, total - 40, total - 1] {
                let (first, count) = g.rows(g.top_for(row));
                assert!((first..first + count).contains(&row), "{row} of {total}");
            }
            // A wheel's notch is five rows, not a page.
            let top = g.top_for(total / 2);
            assert!((g.moved(top, 1_000_000.0, 1_000_100.0) - top - 5.0).abs() < 1e-6);
            assert_eq!(g.moved(top, 1_000_000.0, 0.0), 0.0);
        }
    }

    #[test]
    fn the_end_stays_the_end() {
        let g = log(1_000_000);
        assert!(g.at_end(g.max_top()) && !g.at_end(g.max_top() - 1.0));
        assert_eq!(g.top_for(999_999), g.max_top());
    }
}
