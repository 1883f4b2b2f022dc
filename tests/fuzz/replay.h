/* What a fuzz target is made of: libFuzzer's entry, and, where libFuzzer is not linked (ATSK_REPLAY), a main() that runs each file named
 * on its command line through it once.  So every build without clang replays the corpus. */
#ifndef ATSK_TESTS_REPLAY_H
#define ATSK_TESTS_REPLAY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_REQUIRE(condition)                                                 \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                                  \
    }                                                                           \
  } while (0)

#if defined(ATSK_REPLAY)
static void
file_run(const char *name)
{
  FILE *file = fopen(name, "rb");
  if (file == NULL) {
    perror(name);
    exit(2);
  }
  static uint8_t bytes[1u << 20];
  size_t size = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  fprintf(stderr, "%s\n", name); /* before: a crash is then that file's */
  (void)LLVMFuzzerTestOneInput(bytes, size);
}

int
main(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    file_run(argv[i]);
  }
  printf("replayed %d\n", argc - 1);
  return 0;
}
#endif

#endif
