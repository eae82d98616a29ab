//! The pages of a list: where the next one is, and when it is enough.

use std::collections::HashSet;

use url::Url;

use super::{LARGEST_ANSWER, too_large};

/// Azure may answer a page without rows that leads to another one, but not for ever.
const MOST_PAGES: usize = 1_000;

/// How far the reading of one list has come.
pub(in crate::azure) struct Pages<'a> {
    endpoint: &'a Url,
    most_rows: usize,
    rows: usize,
    bytes_left: usize,
    seen: HashSet<Url>,
}

impl<'a> Pages<'a> {
    /// A list at `endpoint`, of which no more than `most_rows` rows are read.
    pub(in crate::azure) fn new(endpoint: &'a Url, most_rows: usize) -> Self {
        Self {
            endpoint,
            most_rows,
            rows: 0,
            bytes_left: LARGEST_ANSWER,
            seen: HashSet::new(),
        }
    }

    /// How many bytes the next page may have.
    pub(in crate::azure) const fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Where to go on after `page`, which had so many rows and bytes and names what follows by `link`; [`None`] at the
    /// end. Stays on the service's own origin: whatever else a link names would get the token.
    ///
    /// # Errors
    /// Says what is wrong with the list, or that it is longer than is read.
    pub(in crate::azure) fn after(
        &mut self,
        page: Url,
        rows: usize,
        bytes: usize,
        link: Option<&str>,
    ) -> Result<Option<Url>, String> {
        self.rows += rows;
        self.seen.insert(page);
        if self.rows > self.most_rows {
            return Err(format!(
                "it has more than {} rows, which is more than the broker reads",
                self.most_rows
            ));
        }
        let Some(link) = link.filter(|link| !link.is_empty()) else {
            return Ok(None);
        };
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        if self.bytes_left == 0 {
            return Err(too_large());
        }
        if self.seen.len() == MOST_PAGES {
            return Err(format!(
                "it has more than {MOST_PAGES} pages, which is more than the broker reads"
            ));
        }
        let next = Url::parse(link).ok();
        let next = next.filter(|next| next.origin() == self.endpoint.origin());
        let next = next.ok_or_else(|| format!("its nextLink leads away from {}", self.endpoint))?;
        if self.seen.contains(&next) {
            return Err("its pages run in a circle".to_owned());
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Url {
        Url::parse("https://management.azure.com/").unwrap()
    }

    fn page(n: usize) -> Url {
        Url::parse(&format!(
            "https://management.azure.com/subscriptions?$skiptoken={n}"
        ))
        .unwrap()
    }

    #[test]
    fn a_list_goes_on_at_its_own_service_and_nowhere_else() {
        let endpoint = endpoint();
        let next = |link: &str| Pages::new(&endpoint, 1).after(page(0), 1, 1, Some(link));
        let link = "https://management.azure.com:443/subscriptions?$skiptoken=1";
        assert_eq!(next(link), Ok(Some(page(1))));
        assert_eq!(next(""), Ok(None));
        for elsewhere in [
            "https://management.azure.com.example/subscriptions",
            "https://management.azure.com:8443/subscriptions",
            "https://management.azure.com@example/subscriptions",
            "http://management.azure.com/subscriptions",
            "/subscriptions/s?$skiptoken=x",
        ] {
            assert!(next(elsewhere).unwrap_err().contains("leads away"));
        }
    }

    #[test]
    fn a_circle_of_pages_is_noticed() {
        let endpoint = endpoint();
        let mut pages = Pages::new(&endpoint, 10);
        assert_eq!(
            pages.after(page(0), 1, 1, Some(page(1).as_str())),
            Ok(Some(page(1)))
        );
        let back = pages.after(page(1), 1, 1, Some(page(0).as_str()));
        assert_eq!(back.unwrap_err(), "its pages run in a circle");
        let itself = Pages::new(&endpoint, 10).after(page(2), 1, 1, Some(page(2).as_str()));
        assert_eq!(itself.unwrap_err(), "its pages run in a circle");
    }

    /// What comes of a list of so many pages, each with so many rows and bytes.
    fn read(pages: usize, rows: usize, bytes: usize) -> Result<(), String> {
        let endpoint = endpoint();
        let mut reading = Pages::new(&endpoint, 10_000);
        for n in 0..pages {
            let link = page(n + 1);
            let link = (n + 1 < pages).then_some(link.as_str());
            let next = reading.after(page(n), rows, bytes, link)?;
            assert_eq!(next.is_some(), link.is_some());
        }
        Ok(())
    }

    #[test]
    fn a_list_has_an_end_in_rows_pages_and_bytes() {
        assert_eq!(read(100, 100, 1), Ok(()));
        assert!(
            read(101, 100, 1)
                .unwrap_err()
                .contains("more than 10000 rows")
        );
        assert!(
            read(1, 10_001, 1)
                .unwrap_err()
                .contains("more than 10000 rows")
        );
        assert_eq!(read(1_000, 0, 1), Ok(()));
        assert!(
            read(1_001, 0, 1)
                .unwrap_err()
                .contains("more than 1000 pages")
        );
        assert_eq!(read(4, 1, LARGEST_ANSWER / 4), Ok(()));
        assert!(
            read(5, 1, LARGEST_ANSWER / 4)
                .unwrap_err()
                .contains("larger than 64 MiB")
        );
    }
}
