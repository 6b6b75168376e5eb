//! The report: tables of ratios with the target beside each.

use std::fmt::Write;

/// All tables of one run, printed to stderr as they grow and as Markdown at the end.
pub struct Report {
    heading: String,
    tables: Vec<Table>,
}

pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A ratio and what it should not exceed.
pub struct Verdict {
    pub ratio: f64,
    pub target: Option<f64>,
}

impl Report {
    pub fn new(heading: String) -> Self {
        eprintln!("{heading}");
        Self { heading, tables: Vec::new() }
    }

    /// Begins a table; rows go into the last one begun.
    pub fn table(&mut self, title: &str, columns: Vec<String>) {
        eprintln!("\n{title}\n{}", columns.join(" | "));
        self.tables.push(Table { title: title.to_owned(), columns, rows: Vec::new() });
    }

    pub fn row(&mut self, cells: Vec<String>) {
        eprintln!("{}", cells.join(" | "));
        self.tables.last_mut().expect("a table was begun").rows.push(cells);
    }

    /// A row that could not be measured says why; the others go on.
    pub fn row_or_reason(&mut self, name: &str, cells: anyhow::Result<Vec<String>>) {
        match cells {
            Ok(cells) => self.row(cells),
            Err(error) => {
                let reason = format!("{error:#}").replace(['\n', '|'], " ");
                self.row(vec![name.to_owned(), format!("failed: {reason}")]);
            }
        }
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.heading);
        for table in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            let _ = writeln!(text, "\n**{}**\n", table.title);
            let _ = writeln!(text, "| {} |", table.columns.join(" | "));
            let rules: Vec<&str> = (0..table.columns.len())
                .map(|column| if column == 0 { "---" } else { "--:" })
                .collect();
            let _ = writeln!(text, "|{}|", rules.join("|"));
            for row in &table.rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
        }
        text
    }
}

impl Verdict {
    /// The ratio, its target, and whether it was met.
    pub fn cells(&self) -> [String; 3] {
        let ratio = format!("{:.2}", self.ratio);
        match self.target {
            None => [ratio, "–".into(), "–".into()],
            Some(target) => {
                // As printed: a thousandth above is measurement, not a miss.
                let met = (self.ratio * 100.0).round() <= (target * 100.0).round();
                [ratio, format!("≤ {target:.2}"), if met { "yes".into() } else { "**no**".into() }]
            }
        }
    }
}

pub fn columns<'a>(
    before: &[&str],
    peers: impl Iterator<Item = &'a str>,
    after: &[&str],
) -> Vec<String> {
    let before = before.iter().map(|name| (*name).to_owned());
    let after = after.iter().map(|name| (*name).to_owned());
    before.chain(peers.map(str::to_owned)).chain(after).collect()
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => (values[length / 2 - 1] + values[length / 2]) / 2.0,
    }
}

/// Ours ÷ the better peer, where less is better: the median over the rounds of the ratio to each peer,
/// and of these the largest. `values[candidate][round]`, ours first.
pub fn ratio_where_less_is_better(values: &[Vec<f64>]) -> f64 {
    ratios(values).fold(f64::NAN, f64::max)
}

/// The same where more is better.
pub fn ratio_where_more_is_better(values: &[Vec<f64>]) -> f64 {
    ratios(values).fold(f64::NAN, f64::min)
}

fn ratios(values: &[Vec<f64>]) -> impl Iterator<Item = f64> {
    let (ours, peers) = values.split_first().expect("ours is always measured");
    peers.iter().map(|peer| median(ours.iter().zip(peer).map(|(ours, peer)| ours / peer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_peer_decides() {
        let values = [vec![1.0, 1.0, 2.0], vec![2.0, 2.0, 2.0], vec![4.0, 4.0, 4.0]];
        assert_eq!(ratio_where_less_is_better(&values), 0.5);
        assert_eq!(ratio_where_more_is_better(&values), 0.25);
    }
}
