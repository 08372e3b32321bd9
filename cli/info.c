/* niti info: what this machine and this build can do. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "cli.h"
#include "model/description.h"
#include "train/recipe.h"

typedef struct Arguments {
  DeviceOptions device;
  bool json;
} Arguments;

static const Option options[] = {DEVICE_OPTIONS(device), TUNING_OPTION(device), JSON_OPTION, {0}};

static int run(int argc, char **argv);
const Command command_info = {
    "info", "[OPTIONS]", "show devices, CPU features, kernels chosen and threads", "niti info --threads 2", NULL, options, run};

/* Representative shapes: square images and kernels. */
static const struct {
  const char *name;
  int32_t size, in, out, kernel, stride, padding;
} samples[] = {
    {"conv 3x3", 32, 128, 128, 3, 1, 1}, {"conv 3x3 stride 2", 32, 64, 128, 3, 2, 1},
    {"conv 1x1", 16, 256, 256, 1, 1, 0}, {"conv 3x3, 3 channels", 32, 3, 128, 3, 1, 1},
    {"linear", 1, 8192, 10, 1, 1, 0},
};

static NitiConv sample(size_t i) {
  const int32_t size = samples[i].size, kernel = samples[i].kernel, stride = samples[i].stride, padding = samples[i].padding;
  const int32_t outputs = (size + 2 * padding - kernel) / stride + 1;
  return (NitiConv){.n = 64,
                    .h = size,
                    .w = size,
                    .c = samples[i].in,
                    .oh = outputs,
                    .ow = outputs,
                    .k = samples[i].out,
                    .kh = kernel,
                    .kw = kernel,
                    .stride_h = stride,
                    .stride_w = stride,
                    .pad_h = padding,
                    .pad_w = padding};
}

/* The operations beside them. Requantising has kernels for every instruction set; these others are portable C in all. */
static const char *const portable[] = {"input", "relu", "maxpool", "avgpool", "add", "dropout", "loss", "update"};
static const char *const directions[] = {"forward", "backward", "gradient"};
static const NitiOpcode opcodes[] = {NITI_OP_CONV_FORWARD, NITI_OP_CONV_BACKWARD, NITI_OP_CONV_GRADIENT};

static json_t *names_json(const char *const *names) {
  json_t *array = json_array();
  for (; *names; ++names) json_array_append_new(array, json_string(*names));
  return array;
}

static json_t *isas_json(void) {
  json_t *array = json_array();
  for (int isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (niti_isa_supported((NitiIsa)isa)) json_array_append_new(array, json_string(niti_isa_name((NitiIsa)isa)));
  }
  return array;
}

static json_t *kernels_json(NitiBackend *backend) {
  json_t *kernels = json_array();
  for (size_t i = 0; i < sizeof samples / sizeof *samples; ++i) {
    const NitiConv conv = sample(i);
    json_t *entry = json_pack("{s:s}", "operation", samples[i].name);
    for (size_t d = 0; d < 3; ++d) {
      const char *name = niti_backend_conv_kernel(backend, opcodes[d], &conv);
      if (*name) json_object_set_new(entry, directions[d], json_string(name));
      if (*name) continue;
      json_decref(entry); /* memory ran out */
      json_decref(kernels);
      return NULL;
    }
    json_array_append_new(kernels, entry);
  }
  return kernels;
}

/* isa: the CPU backend's; NULL for another backend, which has one kernel for each. */
static json_t *operations_json(const NitiBackend *backend, const NitiIsa *isa) {
  json_t *operations = json_pack("{s:s}", "requantise", isa ? niti_isa_name(*isa) : backend->ops->name);
  for (size_t i = 0; i < sizeof portable / sizeof *portable; ++i) {
    json_object_set_new(operations, portable[i], json_string(isa ? niti_isa_name(NITI_ISA_REF) : backend->ops->name));
  }
  return operations;
}

static void add_device(void *context, const char *line) { json_array_append_new(context, json_string(line)); }

static json_t *devices_json(void) {
  json_t *devices = json_array();
  niti_backend_devices(add_device, devices);
  return devices;
}

/* "24 convolutions for this device in PATH", or why there are none. */
static void format_tuning(char *text, size_t size, const NitiBackend *backend) {
  const NitiTuningFacts *facts = niti_backend_tuning(backend);
  if (!facts)
    (void)snprintf(text, size, "none: a cost model chooses kernels (`niti tune` measures them)");
  else if (facts->note)
    (void)snprintf(text, size, "%s", facts->note);
  else
    (void)snprintf(text, size, "%d convolutions of this device in %s", facts->entries, facts->path);
}

static json_t *tuning_json(const NitiBackend *backend) {
  const NitiTuningFacts *facts = niti_backend_tuning(backend);
  if (!facts) return json_null();
  return json_pack("{s:o, s:i, s:o}", "path", json_name(facts->path), "convolutions", facts->entries, "note",
                   facts->note ? json_name(facts->note) : json_null());
}

static void print_list(const char *name, const json_t *array) {
  size_t i;
  json_t *item;
  printf("%-10s", name);
  json_array_foreach(array, i, item) printf(" %s", json_string_value(item));
  putchar('\n');
}

static int show(NitiBackend *backend, const NitiIsa *isa, bool json) {
  char features[512], tuning[2048];
  niti_cpu_features(features, sizeof features);
  format_tuning(tuning, sizeof tuning, backend);
  json_t *object = json_pack(
      "{s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "tuning", tuning_json(backend), "version",
      niti_version(), "arithmetic", NITI_ARITHMETIC, "backend", backend->ops->name, "device", backend->ops->describe(backend),
      "hardware", backend->ops->hardware(backend), "features", features, "threads", backend->ops->threads(backend), "devices",
      devices_json(), "isa_available", isas_json(), "kernels", kernels_json(backend), "operations", operations_json(backend, isa),
      "models", names_json(niti_builtin_models()), "recipes", names_json(niti_builtin_recipes()));
  if (json || !object) return print_json(object);
  printf("niti       %s, arithmetic %s\ndevice     %s\nhardware   %s\n", niti_version(), NITI_ARITHMETIC,
         backend->ops->describe(backend), backend->ops->hardware(backend));
  printf("%-10s %s\n", "tuning", tuning);
  size_t at;
  json_t *line;
  json_array_foreach(json_object_get(object, "devices"), at, line)
      printf("%-10s %s\n", at == 0 ? "devices" : "", json_string_value(line));
  print_list("isa", json_object_get(object, "isa_available"));
  print_list("models", json_object_get(object, "models"));
  print_list("recipes", json_object_get(object, "recipes"));
  printf("\n%-22s %-28s %-28s %s\n", "kernels", "forward", "backward", "gradient");
  json_array_foreach(json_object_get(object, "kernels"), at, line) {
    printf("%-22s", json_string_value(json_object_get(line, "operation")));
    for (size_t d = 0; d < 3; ++d) printf(" %-28s", json_string_value(json_object_get(line, directions[d])));
    putchar('\n');
  }
  if (isa) {
    printf("%-22s %s\n", "requantise", niti_isa_name(*isa));
    for (size_t i = 0; i < sizeof portable / sizeof *portable; ++i) printf("%-22s ref (portable C)\n", portable[i]);
  }
  json_decref(object);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_info, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count != 0) return usage_error(&command_info, "unexpected argument '%s'", argv[1]);
  const NitiDevice device = device_of(&given.device);
  const NitiBackendOptions wanted = {
      .name = device.backend, .isa = device.isa, .threads = device.threads, .tuning = device.tuning};
  NitiBackend *backend = NULL;
  if (niti_backend_open(&backend, &wanted) != NITI_OK) return fail();
  NitiIsa isa;
  const bool on_cpu = strcmp(backend->ops->name, "cpu") == 0;
  if (on_cpu && niti_isa_parse(&isa, given.device.isa) != NITI_OK) {
    niti_backend_close(backend);
    return fail();
  }
  const int result = show(backend, on_cpu ? &isa : NULL, given.json);
  niti_backend_close(backend);
  return result;
}
