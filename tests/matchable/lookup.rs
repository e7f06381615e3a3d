//! The table of look-ups: for every set of places where something is set, what each question finds.

use tokenpool::matchable::AttributePath;
use tokenpool::{Code, Error};

use super::{Fixture, WorkflowPriority, at, memory, redis, set};

/// Where something may be set: the five levels, and neighbours that no question below is about.
const PLACES: [&str; 9] =
    ["p:d:w:l", "p:d:w", "p:d", "p", ":d", "p:d2", "p2:d", "p:d:w2", "p:d:w:l2"];

/// Questions, and the places that may answer, the most specific first.
const QUESTIONS: [(&str, &[&str]); 9] = [
    ("p:d:w:l", &["p:d:w:l", "p:d:w", "p:d", "p", ":d"]),
    ("p:d:w", &["p:d:w", "p:d", "p", ":d"]),
    ("p:d:w9", &["p:d", "p", ":d"]),
    ("p:d:w:l9", &["p:d:w", "p:d", "p", ":d"]),
    ("p:d", &["p:d", "p", ":d"]),
    ("p:d9", &["p"]),
    ("p", &["p"]),
    (":d", &[":d"]),
    ("p9:d", &[":d"]),
];

async fn the_most_specific_place_answers(f: Fixture) {
    let all = f.of::<WorkflowPriority>();
    for chosen in 0_u32..1 << PLACES.len() {
        // One place changes at a time, in Gray's order.
        let is_set = |gray: u32, place: usize| gray >> place & 1 == 1;
        let gray = chosen ^ chosen >> 1;
        let before = chosen.checked_sub(1).map_or(0, |last| last ^ last >> 1);
        for (place, path) in PLACES.iter().enumerate() {
            if is_set(gray, place) && !is_set(before, place) {
                set(&all, path, i64::try_from(place).unwrap()).await;
            } else if !is_set(gray, place) && is_set(before, place) {
                let deleted = all.delete(&at(path), tokenpool::matchable::Expected::Any).await;
                assert!(deleted.unwrap());
            }
        }
        let there = |path: &&&str| {
            let place = PLACES.iter().position(|place| place == *path).unwrap();
            is_set(gray, place).then_some(())
        };
        for (question, reach) in QUESTIONS {
            let expected = reach.iter().find(|path| there(path).is_some());
            match (all.get_resource(&at(question)).await, expected) {
                (Ok(found), Some(place)) => {
                    let value = PLACES.iter().position(|path| path == place).unwrap();
                    assert_eq!(found.path.as_str(), *place, "{gray:b} {question}");
                    assert_eq!(found.value.priority, i64::try_from(value).unwrap());
                }
                (Err(Error::NotFound { .. }), None) => {}
                (got, expected) => panic!("{gray:b} {question}: {got:?}, not {expected:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_most_specific_place_answers_in_memory() {
    the_most_specific_place_answers(memory().await).await;
}

#[tokio::test]
async fn the_most_specific_place_answers_on_redis() {
    the_most_specific_place_answers(redis().await).await;
}

/// Flyte answers Internal to the first three (MR-9), and finds the project's for the last.
#[test]
fn questions_with_gaps_are_invalid_arguments() {
    for [project, domain, workflow, launch_plan] in
        [["", "", "", ""], ["", "d", "w", ""], ["p", "d", "", "l"], ["p", "", "w", ""]]
    {
        let error = AttributePath::new(project, domain, workflow, launch_plan).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}
