use std::fs::Permissions;

use super::*;

struct Scene {
    directory: tempfile::TempDir,
    engine: Engine,
    key: EngineKey,
}

const WASM: Digest = Digest([9; 32]);

impl Scene {
    fn new() -> Self {
        let engine = Engine::default();
        let directory = tempfile::tempdir().unwrap();
        let key = EngineKey::of(&engine);
        Self { directory, engine, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A cache in this folder that holds one component, and that component's file.
    fn filled(&self, name: &str) -> (CompileCache, PathBuf) {
        let cache = CompileCache::open(&self.path(name)).unwrap();
        let component =
            Component::new(&self.engine, wat::parse_str("(component)").unwrap()).unwrap();
        cache.store(&self.key, WASM, &component);
        let file = cache.path(&self.key, WASM);
        assert!(file.exists());
        (cache, file)
    }

    fn loads(&self, cache: &CompileCache) -> bool {
        cache.load(&self.engine, &self.key, WASM).is_some()
    }
}

#[test]
fn what_was_stored_is_loaded_also_after_opening_again() {
    let scene = Scene::new();
    let (cache, _file) = scene.filled("a");
    assert!(scene.loads(&cache));
    assert!(scene.loads(&CompileCache::open(&scene.path("a")).unwrap()));
    assert!(cache.load(&scene.engine, &scene.key, Digest([1; 32])).is_none(), "never stored");
}

#[test]
fn a_flipped_byte_anywhere_is_refused_and_the_file_removed() {
    let scene = Scene::new();
    let (cache, file) = scene.filled("a");
    let whole = std::fs::read(&file).unwrap();
    for place in [0, LABEL.len(), LABEL.len() + SEAL_BYTES, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        std::fs::write(&file, &flipped).unwrap();
        assert!(!scene.loads(&cache), "byte {place}");
        assert!(!file.exists(), "byte {place}");
    }
    for length in [0, LABEL.len(), LABEL.len() + SEAL_BYTES - 1, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(!scene.loads(&cache), "{length} bytes of it");
    }
    std::fs::write(&file, &whole).unwrap();
    assert!(scene.loads(&cache), "the harm was in the bytes alone");
}

#[test]
fn a_file_under_another_key_or_another_name_is_refused() {
    let scene = Scene::new();
    let (ours, ours_file) = scene.filled("ours");
    let (_theirs, theirs_file) = scene.filled("theirs");
    std::fs::copy(&theirs_file, &ours_file).unwrap();
    assert!(!scene.loads(&ours), "sealed by a foreign key");

    let (ours, ours_file) = scene.filled("ours");
    let other = Digest([8; 32]);
    std::fs::rename(&ours_file, ours.path(&scene.key, other)).unwrap();
    assert!(ours.load(&scene.engine, &scene.key, other).is_none(), "renamed to another component");
}

#[test]
fn files_are_ours_alone_and_looser_modes_are_refused() {
    let scene = Scene::new();
    let (_cache, file) = scene.filled("a");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&scene.path("a").join(KEY_NAME)), 0o600);
    assert_eq!(mode(&scene.path("a")), 0o700);

    std::fs::set_permissions(scene.path("a").join(KEY_NAME), Permissions::from_mode(0o644))
        .unwrap();
    let refused = CompileCache::open(&scene.path("a")).unwrap_err();
    assert!(matches!(refused, CacheError::Loose { mode: 0o644, wanted: 0o600, .. }), "{refused}");
    assert!(refused.to_string().contains("644"), "{refused}");

    std::fs::set_permissions(scene.path("a"), Permissions::from_mode(0o777)).unwrap();
    let refused = CompileCache::open(&scene.path("a")).unwrap_err();
    assert!(matches!(refused, CacheError::Loose { mode: 0o777, .. }), "{refused}");
}

#[test]
fn a_key_that_is_no_key_is_refused() {
    let scene = Scene::new();
    scene.filled("a");
    std::fs::write(scene.path("a").join(KEY_NAME), b"short").unwrap();
    let refused = CompileCache::open(&scene.path("a")).unwrap_err();
    assert!(matches!(refused, CacheError::NotKey { got: 5, .. }), "{refused}");
}

#[test]
fn the_oldest_files_leave_above_the_bound() {
    let scene = Scene::new();
    let (cache, file) = scene.filled("a");
    let long_ago = SystemTime::UNIX_EPOCH;
    File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    for number in 0..FILES_MAX {
        std::fs::write(scene.path("a").join(format!("{number}.{SUFFIX}")), b"").unwrap();
    }
    cache.shed().unwrap();
    assert!(!file.exists(), "the oldest left");
    let left = std::fs::read_dir(scene.path("a")).unwrap().count();
    assert_eq!(left, FILES_MAX + 1, "the bound, and the key");
}
