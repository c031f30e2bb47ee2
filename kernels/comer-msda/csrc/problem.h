// The sizes of one call, checked, as plain numbers that CPU and CUDA code share.
#pragma once

#include <cstdint>

namespace comer_msda {

constexpr int kMaxLevels = 8;
constexpr int kMaxSamples = 256;

struct Problem {
  int64_t batch;
  int64_t tokens;   // rows of the value table: all levels, fine to coarse
  int64_t queries;  // equals `tokens` for the fused operator
  int64_t heads;
  int64_t head_dim;
  int32_t levels;
  int32_t points;
  int32_t height[kMaxLevels];
  int32_t width[kMaxLevels];
  int64_t first_token[kMaxLevels];

  // Samples of one query and head.
  int32_t samples() const { return levels * points; }
};

}  // namespace comer_msda
