/* niti replay and niti import: what a device learned, on the host. */
#include <inttypes.h>

#include "cli.h"
#include "export/import.h"

typedef struct Arguments {
  bool json;
  const char *data, *out;
  DeviceOptions device;
} Arguments;

static const Option replay_options[] = {
    TEXT("data", data, "DIR", "the data set whose training images the log numbers (default: the recipe's)"),
    TEXT("out", out, "FILE", "the checkpoint to write (default: none)"),
    DEVICE_OPTIONS(device),
    TUNING_OPTION(device),
    JSON_OPTION,
    {0},
};

static const Option import_options[] = {TEXT("out", out, "FILE", "the checkpoint to write"), JSON_OPTION, {0}};

static int run_replay(int argc, char **argv);
static int run_import(int argc, char **argv);
const Command command_replay = {"replay",
                                "LOG NETWORK [--data DIR] [--out FILE] [--threads N] [--isa NAME] [--backend NAME] [--json]",
                                "train as a device did, from its log of samples, and print the hash",
                                "niti replay device.log firmware/network/lenet5_wide.safetensors",
                                "FILE NETWORK",
                                replay_options,
                                run_replay};
const Command command_import = {"import",
                                "DUMP NETWORK --out FILE [--json]",
                                "make a checkpoint of the state that a device saved",
                                "niti import slots.bin firmware/network/lenet5_wide.safetensors --out adapted.safetensors",
                                "FILE NETWORK",
                                import_options,
                                run_import};

static int print_result(const NitiImportResult *r, bool json) {
  if (json) return print_json(json_pack("{s:s, s:I, s:i}", "hash", r->hash, "steps", (json_int_t)r->steps, "mu", r->mu));
  printf("%s  after %" PRId64 " steps\n", r->hash, r->steps);
  return EXIT_OK;
}

static int run_replay(int argc, char **argv) {
  Arguments given = {0};
  NitiImportResult result;
  int count;
  const int code = options_parse(&command_replay, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 2) return usage_error(&command_replay, "expected a log and a network");
  const NitiDevice device = device_of(&given.device);
  if (niti_replay(&result, argv[1], argv[2], given.data, given.out, &device) != NITI_OK) return fail();
  return print_result(&result, given.json);
}

static int run_import(int argc, char **argv) {
  Arguments given = {0};
  NitiImportResult result;
  int count;
  const int code = options_parse(&command_import, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 2) return usage_error(&command_import, "expected a dump and a network");
  if (!given.out) return usage_error(&command_import, "--out is missing");
  if (niti_import_dump(&result, argv[1], argv[2], given.out) != NITI_OK) return fail();
  return print_result(&result, given.json);
}
