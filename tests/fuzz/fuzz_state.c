/* Bytes as a last good state: staged as one commit, which is given up; nothing is ever published, whatever they say.  Input: the file,
 * whose checksum is not looked at, and whose length is put right, so that the fuzzer gets behind both. */
#include "table/publish.h"
#include "replay.h"
#include "controller/state.h"

#include <stdlib.h>
#include <string.h>

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  static const uint8_t options[ATSK_OPTIONS_DIGEST] = {0};
  static struct atsk_state_loaded loaded;
  char why[ATSK_STATE_WHY_MAX] = "";
  uint8_t *bytes               = malloc(size > 0 ? size : 1); /* exactly as long: a step past the end is seen */
  memcpy(bytes, data, size);
  if (size >= sizeof(struct atsk_state_header)) {
    struct atsk_state_header *header = (struct atsk_state_header *)(void *)bytes;
    header->total_size               = size;
    memset(header->options, 0, sizeof header->options);
  }
  if (atsk_state_stage_bytes(bytes, size, options, false, &loaded, why) == ATSK_OK) {
    FUZZ_REQUIRE(loaded.settings.health_path_len <= ATSK_HEALTH_PATH_MAX && loaded.settings.n_trusted <= ATSK_TRUSTED_MAX);
    atsk_commit_abort();
  } else {
    FUZZ_REQUIRE(why[0] != '\0');
  }
  FUZZ_REQUIRE(atsk_commit_begin() == ATSK_OK); /* none was left open */
  FUZZ_REQUIRE(atsk_commit_supersede() == ATSK_OK);
  atsk_commit_abort();
  FUZZ_REQUIRE(atsk_table_version() == 0);
  free(bytes);
  return 0;
}
