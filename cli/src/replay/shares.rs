//! What part of its fair share each project got.
//!
//! At any moment a project wants the units of its jobs that run or wait, and its fair share is what
//! max-min fairness gives it of the quota: as much as it wants, or else as much as any other project
//! gets. Over a replay, what it got is compared with what would have been fair in all the time in
//! which it wanted something.

use std::collections::BTreeMap;

use super::played::Played;

/// A user of the log, who stands for a project.
type User = Option<u64>;

/// A project's account.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Units that it has now, and units for which it waits.
    has: i64,
    waits: i64,
    /// Unit-seconds that it got so far, and that would have been fair.
    got: f64,
    fair: f64,
}

impl Account {
    fn wants(&self) -> i64 {
        self.has + self.waits
    }
}

/// Of each project the part of its fair share that it got, from 0 to 1.
pub(super) fn shares(played: &[Played], quota: u64) -> BTreeMap<User, f64> {
    let quota = i64::try_from(quota).unwrap_or(i64::MAX);
    let mut accounts: BTreeMap<User, Account> = BTreeMap::new();
    let mut since = 0;
    for (second, changes) in changes(played) {
        settle(&mut accounts, quota, second - since);
        since = second;
        for Change { user, has, waits } in changes {
            let account = accounts.entry(user).or_default();
            account.has += has;
            account.waits += waits;
        }
    }
    let share = |Account { got, fair, .. }: Account| match fair > 0.0 {
        true => (got / fair).min(1.0),
        false => 1.0, // it never wanted anything for longer than an instant
    };
    accounts.into_iter().map(|(user, account)| (user, share(account))).collect()
}

/// What changes for a project in a second, in units.
#[derive(Clone, Copy, Debug)]
struct Change {
    user: User,
    has: i64,
    waits: i64,
}

fn changes(played: &[Played]) -> BTreeMap<u64, Vec<Change>> {
    let mut changes: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
    for job in played {
        let units = i64::try_from(job.units).unwrap_or(i64::MAX);
        let user = job.owner.user;
        let mut note = |second, has, waits| {
            changes.entry(second).or_default().push(Change { user, has, waits });
        };
        note(job.submitted, 0, units);
        note(job.granted, units, -units);
        note(job.ended, -units, 0);
    }
    changes
}

/// Books so many seconds in which nothing changed.
fn settle(accounts: &mut BTreeMap<User, Account>, quota: i64, seconds: u64) {
    let wants: Vec<_> = accounts.values().map(Account::wants).filter(|&wants| wants > 0).collect();
    let most = most_for_each(wants, quota);
    let seconds = seconds as f64;
    for account in accounts.values_mut() {
        account.got += account.has as f64 * seconds;
        account.fair += (account.wants() as f64).min(most) * seconds;
    }
}

/// How much each may have at most, so that all get the same or what they want.
fn most_for_each(mut wants: Vec<i64>, quota: i64) -> f64 {
    wants.sort_unstable();
    let mut left = quota as f64;
    for (i, &wants_next) in wants.iter().enumerate() {
        let equal = left / (wants.len() - i) as f64;
        if wants_next as f64 > equal {
            return equal;
        }
        left -= wants_next as f64;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::super::swf::Owner;
    use super::*;

    fn job(user: u64, units: u64, submitted: u64, granted: u64, ended: u64) -> Played {
        let owner = Owner { user: Some(user), group: None };
        Played { owner, units, submitted, granted, ended }
    }

    #[test]
    fn all_get_the_same_or_what_they_want() {
        assert_eq!(most_for_each(vec![], 9), f64::INFINITY);
        assert_eq!(most_for_each(vec![4, 5], 9), f64::INFINITY);
        assert_eq!(most_for_each(vec![9, 9, 9], 9), 3.0);
        assert_eq!(most_for_each(vec![100, 1, 6], 9), 4.0);
    }

    #[test]
    fn who_waits_for_what_another_has_too_much_of_gets_less_than_its_share() {
        // From 0 to 10 the first has 4 of 4, and the second waits for 2; then it has them for 10.
        let shares = shares(&[job(1, 4, 0, 0, 10), job(2, 2, 0, 10, 20)], 4);
        assert_eq!(shares[&Some(1)], 1.0);
        assert_eq!(shares[&Some(2)], 0.5);
    }

    #[test]
    fn who_wants_more_than_its_share_loses_nothing_by_waiting() {
        // The first wants 6 of 4 until 10, the second 2: each has its 2.
        let played = [job(1, 2, 0, 0, 10), job(1, 4, 0, 10, 20), job(2, 2, 0, 0, 10)];
        let shares = shares(&played, 4);
        assert_eq!((shares[&Some(1)], shares[&Some(2)]), (1.0, 1.0));
    }

    #[test]
    fn who_wants_nothing_for_any_time_lacks_nothing() {
        assert_eq!(shares(&[job(1, 2, 5, 5, 5)], 4)[&Some(1)], 1.0);
    }
}
