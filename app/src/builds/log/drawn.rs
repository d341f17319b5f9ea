//! What the browser knows of the rows that it has drawn: where they lie and how high they are. Distances are pixels below
//! the upper edge of what can be seen.

use web_sys::{Element, HtmlCollection};

/// Each drawn row says which it is.
pub const ROW: &str = "data-row";

pub struct Drawn {
    rows: HtmlCollection,
    /// Upper and lower edge of what can be seen, in the window.
    edges: (f64, f64),
    /// What is left to scroll.
    left: i32,
}

impl Drawn {
    pub fn of(scroller: &Element) -> Option<Self> {
        let rows = scroller.query_selector(".log-rows").ok()??.children();
        let top = scroller.get_bounding_client_rect().top();
        let height = scroller.client_height();
        let left = scroller.scroll_height() - scroller.scroll_top() - height;
        Some(Self { rows, edges: (top, top + f64::from(height)), left })
    }

    fn row(&self, i: u32) -> Option<(u64, f64, f64)> {
        let row = self.rows.item(i)?;
        let index = row.get_attribute(ROW)?.parse().ok()?;
        let rect = row.get_bounding_client_rect();
        Some((index, rect.top() - self.edges.0, rect.height()))
    }

    /// The first row that `below` finds; rows lie one below the other.
    fn first(&self, below: impl Fn(f64, f64) -> bool) -> Option<u32> {
        let (mut from, mut to) = (0, self.rows.length());
        while from < to {
            let middle = (from + to) / 2;
            let (_, top, height) = self.row(middle)?;
            if below(top, height) {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        Some(from)
    }

    /// The row at the upper edge and its part that is out of sight. An error when no row is there: how far above the
    /// drawn rows the edge lies, or how far below them as a negative number.
    pub fn top(&self) -> Result<(u64, f64), f64> {
        let found = self.first(|top, height| top + height > 0.5).and_then(|i| self.row(i));
        match found {
            Some((0, top, _)) if top > 0.0 => Ok((0, 0.0)),
            Some((_, top, _)) if top > 0.5 => Err(top),
            Some((row, top, height)) => Ok((row, (-top / height).clamp(0.0, 1.0))),
            None => {
                let last = self.rows.length().checked_sub(1).and_then(|i| self.row(i));
                Err(last.map_or(0.0, |(_, top, height)| top + height))
            }
        }
    }

    /// First row and number of rows in sight.
    pub fn in_sight(&self) -> (u64, u64) {
        let height = self.edges.1 - self.edges.0;
        let from = self.first(|top, height| top + height > 0.5).unwrap_or_default();
        let to = self.first(|top, _| top >= height - 0.5).unwrap_or_default();
        (self.row(from).map_or(0, |(row, ..)| row), u64::from(to.saturating_sub(from)))
    }

    /// Where a part of a row lies.
    pub fn place_of(&self, row: u64, part: f64) -> Option<f64> {
        let (first, ..) = self.row(0)?;
        let i = u32::try_from(row.checked_sub(first)?).ok()?;
        let (found, top, height) = self.row(i)?;
        (found == row).then_some(top + part * height)
    }

    pub fn average_px(&self) -> Option<f64> {
        let last = self.rows.length().checked_sub(1)?;
        let ((_, first_top, _), (_, top, height)) = (self.row(0)?, self.row(last)?);
        Some((top + height - first_top) / f64::from(last + 1))
    }

    /// Whether there is nothing more to scroll.
    pub fn at_end(&self) -> bool {
        self.left <= 2
    }
}

/// Where the first mark of a search stands: how far down its row, as a part of the row's height, and where from left to
/// right; none while the row is not drawn.
pub fn mark_in(scroller: &Element, row: u64) -> Option<(f64, f64, f64)> {
    let row = scroller.query_selector(&format!("[{ROW}=\"{row}\"]")).ok()??;
    let (row, mark) = (row.get_bounding_client_rect(), row.query_selector("mark").ok()??.get_bounding_client_rect());
    let left = mark.left() - scroller.get_bounding_client_rect().left();
    Some(((mark.top() - row.top()) / row.height().max(1.0), left, left + mark.width()))
}
