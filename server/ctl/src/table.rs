//! Tables as they are printed: columns to the left, each as wide as its widest cell.

use std::fmt::Write as _;

pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![columns.into_iter().map(str::to_owned).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    pub fn print(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a string does not fail.
                let _ = write!(line, "{cell:<width$} ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `14.9GB`
pub fn size(bytes: f64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    while 1024.0 <= value && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.fract() == 0.0 {
        return format!("{value:.0}{}", units[unit]);
    }
    let text = format!("{value:.2}");
    format!("{}{}", text.trim_end_matches('0').trim_end_matches('.'), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let mut table = Table::new(["DB:ID", "NAME", "STATUS"]);
        table.row(vec!["db:1".into(), "a-long-name".into(), "active".into()]);
        table.row(vec!["db:12".into(), "b".into(), "".into()]);
        assert_eq!(table.print(), "DB:ID NAME        STATUS\ndb:1  a-long-name active\ndb:12 b\n");
    }

    #[test]
    fn sizes_are_for_people() {
        let gb = f64::from(1 << 30);
        for (bytes, text) in [
            (0.0, "0B"),
            (1000.0, "1000B"),
            (1536.0, "1.5KB"),
            (2.0 * gb, "2GB"),
            (14.9 * gb, "14.9GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
