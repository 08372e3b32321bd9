#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"

enum { ISAS = NITI_ISA_AVX512VNNI + 1 };

static const char *const names[ISAS] = {"ref", "avx2", "avx512vnni"};

#if defined(__x86_64__)

/* X(feature): what __builtin_cpu_supports can tell of use here; it counts the operating system's support in. */
#define FEATURES(X) X(avx) X(avx2) X(fma) X(avx512f) X(avx512bw) X(avx512dq) X(avx512vl) X(avx512vnni)

static bool supported(NitiIsa isa) {
  __builtin_cpu_init();
  if (isa == NITI_ISA_AVX512VNNI) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  }
  if (isa == NITI_ISA_AVX2) return __builtin_cpu_supports("avx2");
  return true;
}

static void append(char *text, size_t size, const char *word) {
  const size_t used = strlen(text);
  if (used < size) (void)snprintf(text + used, size - used, "%s%s", used ? " " : "", word);
}

void niti_cpu_features(char *text, size_t size) {
  if (size == 0) return;
  text[0] = 0;
  __builtin_cpu_init();
#define APPEND(feature) \
  if (__builtin_cpu_supports(#feature)) append(text, size, #feature);
  FEATURES(APPEND)
#undef APPEND
}

#else

static bool supported(NitiIsa isa) { return isa == NITI_ISA_REF; }

void niti_cpu_features(char *text, size_t size) {
  if (size) text[0] = 0;
}

#endif

void niti_cpu_model(char *text, size_t size) {
  char line[256];
  (void)snprintf(text, size, "CPU");
  FILE *file = fopen("/proc/cpuinfo", "re");
  if (!file) return;
  while (fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    (void)snprintf(text, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    break;
  }
  fclose(file);
}

NitiIsa niti_cpu_best_isa(void) {
  for (int isa = ISAS - 1; isa > NITI_ISA_REF; --isa) {
    if (supported((NitiIsa)isa)) return (NitiIsa)isa;
  }
  return NITI_ISA_REF;
}

const char *niti_isa_name(NitiIsa isa) { return names[isa]; }

NitiStatus niti_isa_parse(NitiIsa *out, const char *name) {
  if (!name || strcmp(name, "auto") == 0) {
    *out = niti_cpu_best_isa();
    return NITI_OK;
  }
  for (int isa = 0; isa < ISAS; ++isa) {
    if (strcmp(name, names[isa]) != 0) continue;
    if (!supported((NitiIsa)isa)) {
      char features[256];
      niti_cpu_features(features, sizeof features);
      return niti_fail(NITI_ERROR_UNSUPPORTED, "instruction set %s: this CPU lacks it; it has: %s; the best for it is %s", name,
                       features[0] ? features : "none that niti knows", niti_isa_name(niti_cpu_best_isa()));
    }
    *out = (NitiIsa)isa;
    return NITI_OK;
  }
  return niti_fail(NITI_ERROR_ARGUMENT, "instruction set \"%.64s\": unknown, expected ref, avx2, avx512vnni or auto", name);
}
