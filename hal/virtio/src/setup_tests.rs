//! What configurations mean, sane and insane.

use super::*;

const BASIC: Features = Features(Features::VERSION_1.0 | Features::INDIRECT.0);

fn with(features: &[Features]) -> Features {
    Features(features.iter().fold(BASIC.0, |all, one| all | one.0))
}

fn config() -> Config {
    Config {
        capacity_sectors: 1 << 20,
        size_max: 65536,
        seg_max: 254,
        blk_size: 4096,
        physical_block_exp: 3,
        max_discard_sectors: 1000,
        discard_sector_alignment: 16,
        max_write_zeroes_sectors: 500,
        write_zeroes_may_unmap: true,
    }
}

fn of(config: &Config, features: Features) -> Result<Geometry, InitError> {
    geometry(config, features, 256, &Options::default())
}

#[test]
fn without_features_the_fields_do_not_matter() {
    let geometry = of(&config(), BASIC).expect("legal");
    let expected = Geometry {
        segments_max: 1,
        segment_max_bytes: 1 << 30,
        transfer_max_bytes: 4 << 20,
        queue_depth: 256,
        volatile_cache: false,
        // Its exponent is 0 when it is not read.
        physical_block_bytes: 4096,
        ..Geometry::basic(1 << 29)
    };
    assert_eq!(geometry, expected);
}

#[test]
fn all_features_are_reported() {
    let features = with(&[
        Features::SIZE_MAX,
        Features::SEG_MAX,
        Features::BLK_SIZE,
        Features::FLUSH,
        Features::TOPOLOGY,
        Features::DISCARD,
        Features::WRITE_ZEROES,
    ]);
    let geometry = of(&config(), features).expect("legal");
    assert_eq!(geometry.logical_block_bytes, 4096);
    assert_eq!(geometry.physical_block_bytes, 32768);
    assert_eq!(geometry.atomic_write_bytes, 512);
    assert_eq!(geometry.segments_max, 8);
    assert_eq!(geometry.segment_max_bytes, 65536);
    assert_eq!(geometry.transfer_max_bytes, 8 * 65536);
    assert!(geometry.volatile_cache && !geometry.fua && !geometry.read_only);
    let discard = geometry.discard.expect("offered");
    assert_eq!(discard.granularity_bytes, 8192);
    // 1000 sectors are 125 blocks of 4096; 500 are 62.5.
    assert_eq!(discard.max_bytes, 125 * 4096);
    let zeroes = geometry.write_zeroes.expect("offered");
    assert_eq!((zeroes.max_bytes, zeroes.may_unmap), (62 * 4096, true));
}

#[test]
fn capacity_is_cut_to_whole_blocks_and_must_fit() {
    assert_eq!(capacity_bytes(9, 512), Ok(9 * 512));
    assert_eq!(capacity_bytes(15, 4096), Ok(4096));
    assert_eq!(capacity_bytes(0, 512), Ok(0));
    assert_eq!(capacity_bytes(1 << 55, 512), Err(InitError::BadConfig));
    assert_eq!(capacity_bytes(u64::MAX, 512), Err(InitError::BadConfig));
}

#[test]
fn nonsense_is_refused_or_ignored() {
    let features = with(&[
        Features::BLK_SIZE,
        Features::SIZE_MAX,
        Features::SEG_MAX,
        Features::TOPOLOGY,
        Features::DISCARD,
        Features::WRITE_ZEROES,
    ]);
    for blk_size in [0, 1, 256, 513, 6144, 1 << 21, u32::MAX] {
        let bad = Config {
            blk_size,
            ..config()
        };
        assert_eq!(of(&bad, features), Err(InitError::BadConfig), "{blk_size}");
    }
    let bad = Config {
        size_max: 0,
        ..config()
    };
    assert_eq!(of(&bad, features), Err(InitError::BadConfig));

    let odd = Config {
        seg_max: 0,
        physical_block_exp: 255,
        max_discard_sectors: 7,
        max_write_zeroes_sectors: 0,
        ..config()
    };
    let geometry = of(&odd, features).expect("usable");
    assert_eq!(geometry.segments_max, 1);
    assert_eq!(geometry.physical_block_bytes, 4096);
    assert_eq!((geometry.discard, geometry.write_zeroes), (None, None));
}

#[test]
fn a_discard_alignment_of_no_use_falls_back_to_the_block() {
    let features = with(&[Features::BLK_SIZE, Features::DISCARD]);
    for (alignment, granularity) in [(0, 4096), (1, 4096), (24, 12288), (u32::MAX, 4096)] {
        let config = Config {
            discard_sector_alignment: alignment,
            ..config()
        };
        let geometry = of(&config, features).expect("usable");
        let discard = geometry.discard.expect("offered");
        assert_eq!(discard.granularity_bytes, granularity, "{alignment}");
    }
}

#[test]
fn transfers_stay_whole_blocks() {
    let features = with(&[Features::BLK_SIZE, Features::SIZE_MAX, Features::SEG_MAX]);
    let small = Config {
        size_max: 1000,
        ..config()
    };
    let geometry = of(&small, features).expect("usable");
    assert_eq!(geometry.transfer_max_bytes, 4096);
    let tiny = Config {
        size_max: 100,
        ..config()
    };
    assert_eq!(of(&tiny, features), Err(InitError::BadOptions));
}

#[test]
fn depth_follows_queue_and_descriptors() {
    let direct = Features(Features::VERSION_1.0);
    for (features, size, depth) in [(BASIC, 256, 256), (direct, 256, 85), (direct, 4, 1)] {
        let geometry = geometry(&config(), features, size, &Options::default());
        assert_eq!(geometry.expect("usable").queue_depth, depth);
    }
}
