/* niti fold: a network without batch norm that does the same. */
#include "train/fold.h"

#include "cli.h"

typedef struct Arguments {
  const char *out;
  bool json;
} Arguments;

static const Option options[] = {TEXT("out", out, "FILE", "the checkpoint to write"), JSON_OPTION, {0}};

static int run(int argc, char **argv);
const Command command_fold = {"fold",
                              "NETWORK --out FILE [--json]",
                              "fold each batch norm into the weights and bias of the layer before it",
                              "niti fold runs/first --out folded.safetensors",
                              "NETWORK",
                              options,
                              run};

static int report(const NitiFolded *r, const char *out, bool json) {
  if (json)
    return print_json(json_pack("{s:o, s:s, s:s, s:i, s:i}", "checkpoint", json_name(out), "model", r->model, "hash", r->hash,
                                "norms", r->norms, "from_masters", r->masters));
  printf("%d norms folded, %d of them from 16-bit weights; model %s, hash %s\n", r->norms, r->masters, r->model, r->hash);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  NitiFolded result;
  NitiLocation network;
  int count;
  const int code = options_parse(&command_fold, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 1) return usage_error(&command_fold, count == 0 ? "a network is missing" : "one network at a time");
  if (!given.out) return usage_error(&command_fold, "--out is missing");
  if (!locate_weights(&network, argv[1])) return fail();
  const NitiStatus status = niti_fold(&result, &network, given.out);
  niti_location_close(&network);
  return status == NITI_OK ? report(&result, given.out, given.json) : fail();
}
