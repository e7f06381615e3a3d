//! Random sequences of operations on both stores, against a map.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokenpool::matchable::{AttributesOf, Expected, Filter, KEPT_VERSIONS};
use tokenpool::{Code, Error};

use super::{Fixture, Overlay, at, memory, overlay, redis};

const PATHS: [&str; 8] = ["p", "p:d", "p:d:w", "p:d:w:l", ":d", "p:e", "p-x:d", "q:d:w"];

#[derive(Clone, Debug)]
enum Operation {
    Update(usize, Overlay, Expecting),
    Replace(usize, Overlay, Expecting),
    Delete(usize, Expecting),
    Restore(usize, u64, Expecting),
    LookUp(usize),
    Resolve(usize),
    History(usize),
    List(Option<&'static str>, Option<&'static str>, usize),
}

/// What a write expects, seen from what is there.
#[derive(Clone, Copy, Debug)]
enum Expecting {
    Anything,
    Nothing,
    Now,
    Before,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let path = || 0..PATHS.len();
    let value = || {
        let pair = (prop::sample::select(&["a", "b", "c"]), prop::sample::select(&["1", "2", "3"]));
        prop::collection::vec(pair, 0..3).prop_map(|pairs| overlay(&pairs))
    };
    let expecting = || {
        prop_oneof![
            3 => Just(Expecting::Anything),
            1 => Just(Expecting::Nothing),
            2 => Just(Expecting::Now),
            1 => Just(Expecting::Before),
        ]
    };
    let name = |names: &'static [&'static str]| prop::option::of(prop::sample::select(names));
    let operation = prop_oneof![
        4 => (path(), value(), expecting()).prop_map(|(p, v, e)| Operation::Update(p, v, e)),
        2 => (path(), value(), expecting()).prop_map(|(p, v, e)| Operation::Replace(p, v, e)),
        2 => (path(), expecting()).prop_map(|(p, e)| Operation::Delete(p, e)),
        1 => (path(), 0_u64..20, expecting()).prop_map(|(p, v, e)| Operation::Restore(p, v, e)),
        3 => path().prop_map(Operation::LookUp),
        1 => path().prop_map(Operation::Resolve),
        1 => path().prop_map(Operation::History),
        1 => (name(&["p", "q", "p-x"]), name(&["d", "e"]), 1_usize..5)
            .prop_map(|(p, d, n)| Operation::List(p, d, n)),
    ];
    prop::collection::vec(operation, 1..60)
}

/// All versions of every path, the newest last.
#[derive(Debug, Default)]
struct Oracle(BTreeMap<&'static str, Vec<Option<Overlay>>>);

impl Oracle {
    fn now(&self, path: &str) -> Option<(u64, &Overlay)> {
        let versions = self.0.get(path)?;
        Some((versions.len() as u64, versions.last()?.as_ref()?))
    }

    fn expected(&self, path: &str, expecting: Expecting) -> Expected {
        let now = self.now(path).map(|(version, _)| version);
        match (expecting, now) {
            (Expecting::Anything, _) => Expected::Any,
            (Expecting::Now, Some(version)) => Expected::Version(version),
            (Expecting::Nothing, _) | (Expecting::Now, None) => Expected::Absent,
            // One before the last write would be its repetition, were it the same.
            (Expecting::Before, _) => Expected::Version(now.unwrap_or_default() + 7),
        }
    }

    fn admits(&self, path: &str, expected: Expected) -> bool {
        match (expected, self.now(path)) {
            (Expected::Any, _) | (Expected::Absent, None) => true,
            (Expected::Version(expected), Some((version, _))) => expected == version,
            _ => false,
        }
    }

    /// Writes, and answers the new version; none if the expectation is not met.
    fn write(
        &mut self,
        path: &'static str,
        value: Option<Overlay>,
        expected: Expected,
    ) -> Option<u64> {
        let admits = self.admits(path, expected);
        let versions = self.0.entry(path).or_default();
        if !admits {
            // Not a refusal but the same write again: expected to be new, and as new as can be.
            let (last, before) = (versions.last()?, versions.iter().rev().nth(1));
            let is_repeated = *last == value
                && match expected {
                    Expected::Absent => before.is_none_or(Option::is_none),
                    _ => false,
                };
            return is_repeated.then_some(versions.len() as u64);
        }
        // What is there already is not written again.
        let is_there = value.is_some() && versions.last() == Some(&value);
        let is_gone = value.is_none() && versions.last().is_none_or(Option::is_none);
        if !is_there && !is_gone {
            versions.push(value);
        }
        Some(versions.len() as u64)
    }

    fn reach(path: &str) -> Vec<String> {
        at(path).fallbacks().map(str::to_owned).collect()
    }
}

fn version(result: Result<u64, Error>) -> Option<u64> {
    match result {
        Ok(version) => Some(version),
        Err(error) => {
            assert_eq!(error.code(), Code::Aborted, "{error}");
            None
        }
    }
}

async fn step(all: &AttributesOf<Overlay>, oracle: &mut Oracle, operation: &Operation) {
    match operation {
        Operation::Update(place, value, expecting) => {
            let path = PATHS[*place];
            let expected = oracle.expected(path, *expecting);
            let got = all.update(&at(path), value.clone(), expected).await;
            let wanted = oracle.admits(path, expected).then(|| {
                let mut merged = oracle.now(path).map(|(_, now)| now.clone()).unwrap_or_default();
                merged.0.extend(value.0.clone());
                oracle.write(path, Some(merged), expected).unwrap()
            });
            assert_eq!(version(got.map(|done| done.version)), wanted);
        }
        Operation::Replace(place, value, expecting) => {
            let path = PATHS[*place];
            let expected = oracle.expected(path, *expecting);
            let got = all.replace(&at(path), value.clone(), expected).await;
            let wanted = oracle.write(path, Some(value.clone()), expected);
            assert_eq!(version(got.map(|done| done.version)), wanted);
        }
        Operation::Delete(place, expecting) => {
            let path = PATHS[*place];
            let expected = oracle.expected(path, *expecting);
            let was_there = oracle.now(path).is_some();
            match (all.delete(&at(path), expected).await, oracle.write(path, None, expected)) {
                (Ok(there), Some(_)) => assert_eq!(there, was_there),
                (Err(error), None) => assert_eq!(error.code(), Code::Aborted, "{error}"),
                (got, wanted) => panic!("{got:?}, not {wanted:?}"),
            }
        }
        Operation::Restore(place, number, expecting) => {
            let path = PATHS[*place];
            let expected = oracle.expected(path, *expecting);
            let got = all.restore(&at(path), *number, expected).await;
            let versions = oracle.0.get(path).cloned().unwrap_or_default();
            let kept = (versions.len() as u64).saturating_sub(KEPT_VERSIONS);
            let old = usize::try_from(*number)
                .unwrap()
                .checked_sub(1)
                .and_then(|i| versions.get(i)?.clone());
            match old.filter(|_| *number > kept) {
                Some(old) => {
                    let wanted = oracle.write(path, Some(old), expected);
                    assert_eq!(version(got.map(|done| done.version)), wanted);
                }
                None => {
                    let code = got.unwrap_err().code();
                    assert!(matches!(code, Code::InvalidArgument | Code::NotFound), "{code:?}");
                }
            }
        }
        Operation::LookUp(place) => {
            let path = PATHS[*place];
            let reach = Oracle::reach(path);
            let wanted = reach.iter().find_map(|place| {
                oracle.now(place).map(|(version, value)| (place.clone(), version, value.clone()))
            });
            let got = match all.get_resource(&at(path)).await {
                Ok(found) => Some((found.path.to_string(), found.version, found.value.clone())),
                Err(Error::NotFound { .. }) => None,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(got, wanted);
        }
        Operation::Resolve(place) => {
            let mut wanted = BTreeMap::new();
            for place in Oracle::reach(PATHS[*place]) {
                for (key, value) in oracle.now(&place).into_iter().flat_map(|(_, now)| &now.0) {
                    wanted.entry(key.clone()).or_insert((value.clone(), place.clone()));
                }
            }
            let Ok(got) = all.resolve(&at(PATHS[*place])).await else {
                assert_eq!(wanted.len(), 0);
                return;
            };
            let source = |key: &String| got.sources[&format!("/{key}")].to_string();
            let pairs =
                got.merged.0.iter().map(|(key, value)| (key.clone(), (value.clone(), source(key))));
            assert_eq!(pairs.collect::<BTreeMap<_, _>>(), wanted);
        }
        Operation::History(place) => {
            let versions = oracle.0.get(PATHS[*place]).cloned().unwrap_or_default();
            let kept = usize::try_from(KEPT_VERSIONS).unwrap();
            let wanted: Vec<_> = (1..)
                .zip(versions)
                .collect::<Vec<(u64, _)>>()
                .into_iter()
                .rev()
                .take(kept)
                .collect();
            let got = match all.history(&at(PATHS[*place])).await {
                Ok(got) => {
                    got.into_iter().map(|v| (v.version, v.value.map(Result::unwrap))).collect()
                }
                Err(Error::NotFound { .. }) => Vec::new(),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(got, wanted);
        }
        Operation::List(project, domain, count) => {
            let mut filter = Filter::ALL;
            if let Some(project) = project {
                filter = filter.project(project).unwrap();
            }
            if let Some(domain) = domain {
                filter = filter.domain(domain).unwrap();
            }
            let (mut got, mut next) = (Vec::new(), None);
            loop {
                let page = all.list(&filter, next.as_ref(), *count).await.unwrap();
                got.extend(page.found.into_iter().map(|found| (found.path, found.version)));
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            let wanted = PATHS.iter().map(|path| at(path)).filter(|path| {
                let fits =
                    |wanted: &Option<&str>, name: Option<&str>| wanted.is_none() || *wanted == name;
                fits(project, path.project_name()) && fits(domain, path.domain_name())
            });
            let wanted = wanted.filter_map(|path| {
                let (version, _) = oracle.now(path.as_str())?;
                Some((path, version))
            });
            assert_eq!(got, wanted.collect::<BTreeMap<_, _>>().into_iter().collect::<Vec<_>>());
        }
    }
}

fn hold(fixture: impl AsyncFn() -> Fixture, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let f = RefCell::new(runtime.block_on(fixture()));
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let ran = runner.run(&operations(), |operations| {
        let mut f = f.borrow_mut();
        f.empty();
        runtime.block_on(async {
            let (all, mut oracle) = (f.of::<Overlay>(), Oracle::default());
            for operation in &operations {
                step(&all, &mut oracle, operation).await;
            }
        });
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{error}");
    }
}

#[test]
fn sequences_in_memory_end_as_on_a_map() {
    hold(async || memory().await, 400);
}

#[test]
fn sequences_on_redis_end_as_on_a_map() {
    hold(async || redis().await, 150);
}
