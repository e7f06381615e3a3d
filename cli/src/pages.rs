//! Listings of the library, page by page.

use std::collections::HashSet;

use tokenpool::{Backend, Cursor, Holding, Member, PoolName, Result, TicketRecord};

const PER_PAGE: usize = 1000;

/// Who holds units of a pool. While the pool is in use, one may stand on two pages.
#[derive(Debug)]
pub(crate) struct HolderPages<'a> {
    backend: &'a dyn Backend,
    pool: &'a PoolName,
    next: Option<Cursor>,
}

impl<'a> HolderPages<'a> {
    pub(crate) fn new(backend: &'a dyn Backend, pool: &'a PoolName) -> Self {
        Self { backend, pool, next: Some(Cursor::default()) }
    }

    /// The next page; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Holding>>> {
        let Some(from) = self.next else { return Ok(None) };
        let page = self.backend.holders(self.pool, from, PER_PAGE).await?;
        self.next = page.next;
        Ok(Some(page.holdings))
    }
}

/// Who waits for units of a pool, by rank.
#[derive(Debug)]
pub(crate) struct TicketPages<'a> {
    backend: &'a dyn Backend,
    pool: &'a PoolName,
    next: Option<Cursor>,
    /// Those of the page before: of the same rank as its last, some may be on the next one, too.
    before: HashSet<Member>,
}

impl<'a> TicketPages<'a> {
    pub(crate) fn new(backend: &'a dyn Backend, pool: &'a PoolName) -> Self {
        Self { backend, pool, next: Some(Cursor::default()), before: HashSet::new() }
    }

    /// The next page; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<TicketRecord>>> {
        let Some(from) = self.next else { return Ok(None) };
        let page = self.backend.tickets(self.pool, from, PER_PAGE).await?;
        self.next = page.next;
        let mut tickets = page.tickets;
        tickets.retain(|ticket| !self.before.contains(&ticket.member));
        self.before = tickets.iter().map(|ticket| ticket.member.clone()).collect();
        Ok(Some(tickets))
    }
}
