// The image that a user means among those of an archive: full names, and tags alone as `skopeo copy` writes them.
import { formatReference, parseReference } from '../registry/reference.ts';

/** A reference, compared with what archives call their images. */
export interface WantedName {
  text: string;
  matches(name: string): boolean;
}

/** `docker.io/library/debian:12` for `debian:12`: what Docker's tools and containerd call it. */
export function fullName(reference: string): string {
  return formatReference(parseReference(reference));
}

/** Tag of a full name; undefined when it has none. */
export function tagOf(name: string): string | undefined {
  return parseReference(name, { defaultTag: false }).tag;
}

/** A name as a reference or a tag. */
export function wantedName(reference: string): WantedName {
  const full = fullName(reference);
  const tag = tagOf(full);
  return {
    text: full,
    matches: (name) => {
      if (name === reference || name === full || (tag !== undefined && name === tag)) return true;
      if (!/[/:]/.test(name)) return false; // a tag alone
      try {
        return fullName(name) === full;
      } catch {
        return false;
      }
    },
  };
}
