//! The bytes that Flyte's own library makes, and what is none of them.

use proptest::prelude::*;
use serde_json::json;

use super::super::kinds::arbitrary;
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("it is hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn problem(text: &str) -> String {
    match MatchingAttributes::from_flyte_bytes(&bytes(text)) {
        Ok(read) => format!("{read:?}"),
        Err(error) => error.to_string(),
    }
}

/// Made by Python's flyteidl 1.16.8, deterministically.
#[test]
fn bytes_are_flytes() {
    let vectors = [
        (
            json!({"task_resource_attributes": {
                "defaults": {"cpu": "1", "memory": "150Mi"}, "limits": {"cpu": "2", "memory": "450Mi"},
            }}),
            "0a180a0a0a01311a053135304d69120a0a01321a053435304d69",
        ),
        (json!({"task_resource_attributes": {}}), "0a00"),
        (
            json!({"cluster_resource_attributes": {"attributes": {"foo": "bar"}}}),
            "120c0a0a0a03666f6f1203626172",
        ),
        (
            json!({"execution_queue_attributes": {"tags": ["foo", "bar", "baz"]}}),
            "1a0f0a03666f6f0a036261720a0362617a",
        ),
        (json!({"execution_cluster_label": {"value": "foo"}}), "22050a03666f6f"),
        (json!({"quality_of_service": {"tier": "HIGH"}}), "2a020801"),
        (
            json!({"quality_of_service": {"spec": {"queueing_budget": "300s"}}}),
            "2a0712050a0308ac02",
        ),
        (
            json!({"plugin_overrides": {"overrides": [{
                "task_type": "python", "plugin_id": ["plugin a"], "missing_plugin_behavior": "USE_DEFAULT",
            }]}}),
            "32160a140a06707974686f6e1208706c7567696e20612001",
        ),
        (
            json!({"workflow_execution_config": {
                "max_parallelism": 5,
                "raw_output_data_config": {"output_location_prefix": "s3://test-bucket"},
                "labels": {"values": {"lab1": "val1"}},
            }}),
            "3a2608051a120a1073333a2f2f746573742d6275636b6574220e0a0c0a046c616231120476616c31",
        ),
        (json!({"workflow_execution_config": {"interruptible": false}}), "3a023200"),
        (
            json!({"workflow_execution_config": {
                "security_context": {"run_as": {"k8s_service_account": "demo"}},
            }}),
            "3a0a12080a06120464656d6f",
        ),
        (json!({"cluster_assignment": {"cluster_pool_name": "gpu"}}), "42051a03677075"),
    ];
    for (attributes, expected) in vectors {
        let attributes: MatchingAttributes =
            serde_json::from_value(attributes).expect("they are attributes");
        assert_eq!(hex(&attributes.to_flyte_bytes()), expected, "{attributes:?}");
        let read = MatchingAttributes::from_flyte_bytes(&bytes(expected)).expect("they are bytes");
        assert_eq!(read, Some(attributes));
    }
}

#[test]
fn no_target_is_no_attributes() {
    assert_eq!(problem(""), "None");
}

#[test]
fn messages_that_are_empty_set_nothing() {
    // Task resources with an empty half; an execution config with empty labels; a quality without a designation.
    for (empty, normal) in [("0a020a00", "0a00"), ("3a022200", "3a00"), ("2a00", "2a020800")] {
        let read = MatchingAttributes::from_flyte_bytes(&bytes(empty)).expect("they are bytes");
        let read = read.expect("there is a target");
        assert_eq!(hex(&read.to_flyte_bytes()), normal);
        assert!(read.validate().is_err());
    }
}

#[test]
fn a_security_context_may_be_empty() {
    let read = MatchingAttributes::from_flyte_bytes(&bytes("3a021200")).expect("they are bytes");
    assert_eq!(hex(&read.expect("there is a target").to_flyte_bytes()), "3a021200");
}

#[test]
fn entries_of_maps_are_in_order_and_the_last_of_a_key_counts() {
    // foo=a, bar=, foo=b; without the value of bar, which is as good as an empty one.
    let text = "121b0a080a03666f6f1201610a050a036261720a080a03666f6f120162";
    let read = MatchingAttributes::from_flyte_bytes(&bytes(text)).expect("they are bytes");
    let written = hex(&read.expect("there is a target").to_flyte_bytes());
    assert_eq!(written, "12130a070a0362617212000a080a03666f6f120162");
}

#[test]
fn bytes_cut_off_are_malformed() {
    let whole = bytes("32160a140a06707974686f6e1208706c7567696e20612001");
    for length in 1..whole.len() {
        let read = MatchingAttributes::from_flyte_bytes(&whole[..length]);
        assert!(matches!(read, Err(FlyteBytesError::Malformed { .. })), "{length}: {read:?}");
    }
    // No UTF-8; a varint where a message should be; a group that does not end.
    for text in ["22030a01ff", "0801", "0b"] {
        assert_eq!(problem(text), "not a flyteidl.admin.MatchingAttributes", "{text}");
    }
}

#[test]
fn attributes_of_an_unknown_kind_are_told_from_none() {
    let cases = [
        ("4a00", "MatchingAttributes has the unknown field 9; 1 to 8 are known"),
        ("5a020807", "MatchingAttributes has the unknown field 11; 1 to 8 are known"),
        ("22050a03666f6f4a00", "MatchingAttributes has the unknown field 9; 1 to 8 are known"),
        ("4a0022050a03666f6f", "MatchingAttributes has the unknown field 9; 1 to 8 are known"),
        ("980107", "MatchingAttributes has the unknown field 19; 1 to 8 are known"),
        ("4b4c", "MatchingAttributes has the unknown field 9; 1 to 8 are known"),
    ];
    for (text, expected) in cases {
        assert_eq!(problem(text), expected, "{text}");
    }
}

#[test]
fn unknown_values_and_negative_durations_are_refused_with_their_place() {
    let unknown = "is none of the numbers of its values";
    let negative = "must be a duration that is not negative";
    let minus_one = "ffffffffffffffffff01";
    let cases = [
        ("2a020804".to_owned(), format!("tier \"4\": {unknown}")),
        (
            "32040a022002".to_owned(),
            format!("overrides[0].missing_plugin_behavior \"2\": {unknown}"),
        ),
        (
            "32060a000a022002".to_owned(),
            format!("overrides[1].missing_plugin_behavior \"2\": {unknown}"),
        ),
        (
            "3a06120412022003".to_owned(),
            format!("security_context.secrets[0].mount_requirement \"3\": {unknown}"),
        ),
        (
            "3a0612041a021001".to_owned(),
            format!("security_context.tokens[0].type \"1\": {unknown}"),
        ),
        (
            format!("2a0f120d0a0b08{minus_one}"),
            format!("spec.queueing_budget \"-1s and 0ns\": {negative}"),
        ),
        (
            format!("2a0f120d0a0b10{minus_one}"),
            format!("spec.queueing_budget \"0s and -1ns\": {negative}"),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problem(&text), expected, "{text}");
    }
}

#[test]
fn a_number_that_json_has_not_is_refused_with_its_place() {
    // An environment's spec {"k": NaN}.
    let nan = "3a164a141a1222100a0e0a016b120911000000000000f87f";
    let expected = "execution_env_assignments[0].execution_env.spec[\"k\"] \"NaN\": must be a number that JSON has";
    assert_eq!(problem(nan), expected);
}

#[test]
fn the_deepest_environment_that_is_valid_is_read() {
    let deep = (0..16).fold(json!(1), |inner, level| match level % 2 {
        0 => json!([inner]),
        _ => json!({ "k": inner }),
    });
    let config = json!({"workflow_execution_config": {"execution_env_assignments": [
        {"execution_env": {"name": "e", "spec": {"k": deep}}},
    ]}});
    let config: MatchingAttributes = serde_json::from_value(config).expect("they are attributes");
    assert_eq!(config.validate(), Ok(()));
    let read = MatchingAttributes::from_flyte_bytes(&config.to_flyte_bytes());
    assert_eq!(read.expect("they are bytes"), Some(config));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(attributes in arbitrary::attributes()) {
        let written = attributes.to_flyte_bytes();
        let read = MatchingAttributes::from_flyte_bytes(&written).expect("they are bytes");
        prop_assert_eq!(read, Some(attributes));
    }

    #[test]
    fn no_bytes_are_too_odd(
        attributes in arbitrary::attributes(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = attributes.to_flyte_bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Some(read)) = MatchingAttributes::from_flyte_bytes(&bytes) {
            let _ = read.validate();
            let again = MatchingAttributes::from_flyte_bytes(&read.to_flyte_bytes());
            prop_assert_eq!(again.expect("they are bytes"), Some(read));
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes: Vec<u8>) {
        let _ = MatchingAttributes::from_flyte_bytes(&bytes);
    }
}
