//! Writes the definitions of nodemesh's kinds into a folder: `cargo xtask crds`.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or("which folder?")?;
    for (name, yaml) in mesh_controller::crd::files()? {
        fs::write(folder.join(&name), yaml)?;
        println!("{}", folder.join(name).display());
    }
    Ok(())
}
