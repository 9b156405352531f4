use super::*;

fn sample(i: u64) -> RawSample {
    let id = splitmask_pipeline::types::SampleId {
        epoch: 0,
        shard: 0,
        member: i as u32,
    };
    RawSample {
        id,
        shard: "s".into(),
        key: i.to_string(),
        image: Bytes::new(),
        extension: "png".into(),
        label: None,
    }
}

/// From streams of any length the sheet gets samples of all parts, about evenly spaced.
#[test]
fn the_sheet_gets_evenly_spaced_samples() {
    for length in [3u64, 10, 19, 20, 21, 1000, 4321] {
        let mut kept = Kept {
            want: 10,
            ..Kept::default()
        };
        (0..length).for_each(|i| kept.offer(i, &sample(i)));
        let chosen: Vec<u64> = kept.choose().into_iter().map(|(_, _, key)| key.parse().unwrap()).collect();
        assert_eq!(chosen.len() as u64, length.min(10));
        let gaps: Vec<u64> = chosen
            .windows(2)
            .map(|w| w[1] - w[0])
            .chain([length - chosen[chosen.len() - 1]])
            .collect();
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(chosen[0] == 0 && *most <= 3 * least.max(&1), "{length}: {chosen:?}");
    }
}

#[test]
fn balance_of_known_counts() {
    let counts = |list: &[u64]| list.iter().map(|&n| (String::new(), n)).collect::<Vec<_>>();
    assert_eq!(balance(&counts(&[5, 5, 5, 5])), Some((1.0, 0.25)));
    let (even, largest) = balance(&counts(&[3, 1])).unwrap();
    assert!((even - 0.811_278).abs() < 1e-6 && largest == 0.75);
    assert_eq!(balance(&counts(&[7])), None);
    assert_eq!(balance(&[]), None);
    assert_eq!(spread(&[3, 1, 2]), Some([1, 2, 3]));
}
