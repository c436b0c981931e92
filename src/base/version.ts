// What `--version` prints and the API reports. The bundler replaces the __NAMES__ below (tools/bundle); a run straight
// from the sources has fallbacks. Source: nydusd.md 1.11 and 5.4.

declare const __PACKAGE_VERSION__: string | undefined;
declare const __GIT_COMMIT__: string | undefined;
declare const __BUILD_TIME__: string | undefined;

/** Version block of every program, spelled as the API spells it. */
export interface VersionInfo {
  /** starts with `v`: acceleration-service records nothing else as a builder version */
  package_ver: string;
  git_commit: string;
  build_time: string;
  profile: 'release' | 'debug';
  /** upstream names its compiler here; ours names the runtime */
  rustc: string;
}

/** The version of this program. */
export function versionInfo(): VersionInfo {
  const bundled = typeof __GIT_COMMIT__ === 'string';
  return {
    package_ver: `v${typeof __PACKAGE_VERSION__ === 'string' ? __PACKAGE_VERSION__ : '0.1.0'}`,
    git_commit: typeof __GIT_COMMIT__ === 'string' ? __GIT_COMMIT__ : 'unknown',
    build_time: typeof __BUILD_TIME__ === 'string' ? __BUILD_TIME__ : 'unknown',
    profile: bundled ? 'release' : 'debug',
    rustc: `node ${process.version}`,
  };
}

/**
 * Text of `--version`, with the line feed at its end. The carriage return before `Version:` is upstream's: on a
 * terminal the program name is overwritten.
 */
export function versionText(program: string): string {
  const v = versionInfo();
  return (
    `${program} \rVersion: \t${v.package_ver}\nGit Commit: \t${v.git_commit}\nBuild Time: \t${v.build_time}\n` +
    `Profile: \t${v.profile}\nRustc: \t\t${v.rustc}\n`
  );
}

/** The line that the log of every daemon begins with. */
export function versionLine(): string {
  const v = versionInfo();
  return (
    `Program Version: ${v.package_ver}, Git Commit: "${v.git_commit}", Build Time: "${v.build_time}", ` +
    `Profile: "${v.profile}", Rustc Version: "${v.rustc}"`
  );
}
