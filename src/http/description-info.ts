// What both descriptions say of the server itself.

import { PROTOCOL_REVISION } from "../protocol/revision.ts";

/** As in package.json; a test compares them. */
const VERSION = "0.1.0";
const LICENSE = "Apache-2.0";

export const INFO = {
  title: "Tidemark",
  version: VERSION,
  license: { name: LICENSE, url: "https://www.apache.org/licenses/LICENSE-2.0" },
  "x-protocol-revision": PROTOCOL_REVISION,
};
