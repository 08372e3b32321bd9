/* niti hash: the identity of a network's weights. */
#include "cli.h"
#include "train/inference.h"

typedef struct Arguments {
  bool json;
} Arguments;

static const Option options[] = {JSON_OPTION, {0}};

static int run(int argc, char **argv);
const Command command_hash = {
    "hash", "NETWORK [--json]", "print the SHA-256 of a network's weights", "niti hash runs/first:last", "NETWORK", options, run};

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_hash, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_hash, count == 0 ? "a network is missing" : "one network at a time");
  char hash[65];
  NitiLocation where;
  int result = EXIT_OK;
  if (!locate_weights(&where, argv[1])) return fail();
  if (niti_location_hash(&where, hash) != NITI_OK) {
    result = fail();
  } else if (given.json) {
    result = print_json(json_pack("{s:o, s:s, s:b}", "checkpoint", json_name(where.path), "hash", hash, "trained",
                                  where.kind == NITI_LOCATED_CHECKPOINT));
  } else {
    puts(hash);
  }
  niti_location_close(&where);
  return result;
}
