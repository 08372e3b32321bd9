/* niti hash: the identity of a checkpoint's weights. */
#include "cli.h"

typedef struct Arguments {
  bool json;
} Arguments;

static const Option options[] = {JSON_OPTION, {0}};

static int run(int argc, char **argv);
const Command command_hash = {"hash",
                              "CHECKPOINT [--json]",
                              "print the SHA-256 of a checkpoint's weights",
                              "niti hash runs/first/last.safetensors",
                              "FILE",
                              options,
                              run};

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_hash, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_hash, count == 0 ? "a checkpoint is missing" : "one checkpoint at a time");
  char hash[65];
  if (niti_checkpoint_file_hash(argv[1], hash) != NITI_OK) return fail();
  if (given.json) return print_json(json_pack("{s:s, s:s}", "checkpoint", argv[1], "hash", hash));
  puts(hash);
  return EXIT_OK;
}
