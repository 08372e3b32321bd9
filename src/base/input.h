/* Pixels as mantissas: docs/arithmetic.md, "Input and initial weights". */
#ifndef NITI_BASE_INPUT_H
#define NITI_BASE_INPUT_H

#include "base/round.h"

enum { NITI_INPUT_EXPONENT_MIN = -20, NITI_INPUT_EXPONENT_MAX = 20 };

/* The smallest exponent of that range at which every pixel value of every channel is a mantissa; mean[channels] and
 * std[channels] in millionths, std > 0. False where there is none. */
bool niti_input_exponent(int32_t *exponent, int channels, const int32_t *mean, const int32_t *std);
/* Pixel value v in [0, 255] at that exponent. */
int8_t niti_input_mantissa(int v, int32_t mean, int32_t std, int32_t exponent);

enum { NITI_VALUE_EXPONENT = -5 };
/* A signed value as a mantissa at that exponent: nearest((v - mean) / std * 2^5), clipped. mean and std in millionths of `full`
 * (128 for int8, 32768 for int16), |mean| <= 10^6, 0 < std <= 8 * 10^6, |v| <= full. */
int8_t niti_value_mantissa(int32_t v, int32_t full, int32_t mean, int32_t std);

#endif
