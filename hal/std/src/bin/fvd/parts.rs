//! From options to the files that an image is made of.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fvd_std::image::{BaseFormat, Parts};

use crate::args::{Format, PartsArgs};
use crate::failure::Failure;
use crate::output::Shown;

/// The parts that the options name.
pub(crate) fn of(args: &PartsArgs) -> Result<Parts, Failure> {
    for path in [&args.base, &args.data_file].into_iter().flatten() {
        check_file(path)?;
    }
    Ok(Parts {
        base: args
            .base
            .clone()
            .map(|path| (path, format(args.base_format))),
        data_file: args.data_file.clone(),
        follow_names: args.follow_names,
        base_id: args.base_id,
        accept_base: args.accept_base,
        ..Parts::default()
    })
}

/// The parts for a look at metadata alone: what is not named is done without.
pub(crate) fn for_metadata(args: &PartsArgs) -> Result<Parts, Failure> {
    let parts = of(args)?;
    // With no base to read, there is none whose identity could be wrong.
    Ok(Parts {
        allow_absent: true,
        ..parts
    })
}

pub(crate) const fn format(format: Format) -> BaseFormat {
    match format {
        Format::Raw => BaseFormat::Raw,
        Format::Fvd => BaseFormat::Fvd,
    }
}

/// Refuses what is meant as a network address.
pub(crate) fn check_file(path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.starts_with(b"nbd://") || bytes.starts_with(b"nbd+unix://") {
        let what = format!(
            "{}: network block devices are not supported yet",
            Shown(path)
        );
        return Err(Failure::Usage(what));
    }
    Ok(())
}

/// The name of `part` to store in the image at `image`: as given if that is absolute, else relative
/// to the folder of the image, so that both can move together.
pub(crate) fn stored_name(image: &Path, part: &Path) -> std::io::Result<PathBuf> {
    if part.is_absolute() {
        return Ok(part.to_path_buf());
    }
    let (image, own) = (
        folder_of(image).canonicalize()?,
        folder_of(part).canonicalize()?,
    );
    let name = part.file_name().unwrap_or_default();
    let shared = image
        .components()
        .zip(own.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = image.components().skip(shared).map(|_| Path::new(".."));
    let mut path: PathBuf = up.collect();
    path.extend(own.components().skip(shared));
    Ok(path.join(name))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_lead_from_the_image_to_the_part() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path().canonicalize().expect("path");
        fs::create_dir_all(root.join("a/b")).expect("folders");
        fs::create_dir_all(root.join("c")).expect("folders");
        let here = std::env::current_dir()
            .expect("folder")
            .canonicalize()
            .expect("path");
        // A relative way to the temporary folder, from wherever the test runs.
        let mut relative: PathBuf = here.components().skip(1).map(|_| Path::new("..")).collect();
        relative.extend(root.components().skip(1));
        let name = |image: &str, part: &str| {
            let stored = stored_name(&relative.join(image), &relative.join(part));
            stored.expect("folders that exist").display().to_string()
        };
        assert_eq!(name("image", "base"), "base");
        assert_eq!(name("a/image", "base"), "../base");
        assert_eq!(name("image", "a/b/base"), "a/b/base");
        assert_eq!(name("a/b/image", "c/base"), "../../c/base");
        let absolute = stored_name(&relative.join("image"), &root.join("base"));
        assert_eq!(absolute.expect("absolute"), root.join("base"));
    }

    #[test]
    fn addresses_are_refused() {
        assert!(check_file(Path::new("nbd://host:10809/disk")).is_err());
        assert!(check_file(Path::new("nbd+unix:///?socket=/s")).is_err());
        assert!(check_file(Path::new("nbd.raw")).is_ok());
    }
}
