/* A program of somebody else: it sees only what `make install` has put in place. */
#include <niti.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  int8_t table[256];
  int32_t exponent;
  const int32_t mean = 500000, std = 0;
  if (strcmp(niti_version(), NITI_VERSION) != 0 || niti_version_number() != NITI_VERSION_NUMBER) return 1;
  if (niti_bits(129) != 8 || niti_requantise_shift(129) != 1) return 2;
  if (niti_round(-5, 1, NITI_NEAREST, 0) != -3 || niti_round_int8(1 << 20, 2, NITI_TRUNCATE, 0) != 127) return 3;
  if (niti_random(1, NITI_DRAW_INIT, 0, 1, 0) == niti_random(2, NITI_DRAW_INIT, 0, 1, 0)) return 4;
  if (niti_input_table(table, &exponent, 1, &mean, &std) != NITI_ERROR_ARGUMENT || !*niti_error()) return 5;
  NitiTrainOptions options = {0};
  NitiTrainResult result;
  options.device.threads = -1;
  if (niti_train(&result, NULL, "run", &options) != NITI_ERROR_ARGUMENT || !strstr(niti_error(), "recipe")) return 6;
  if (niti_resume(&result, "run", &options) != NITI_ERROR_ARGUMENT || !strstr(niti_error(), "threads")) return 7;
  return printf("niti %s\n", niti_version()) < 0;
}
