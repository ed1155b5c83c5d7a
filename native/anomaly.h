#pragma once

namespace gmml {

// Whether this thread wants anomaly mode. A thread that ends in the middle no longer does.
class AnomalyRegion {
 public:
  enum class State { Off, On, CheckNan };

  AnomalyRegion() = default;
  AnomalyRegion(const AnomalyRegion&) = delete;
  AnomalyRegion& operator=(const AnomalyRegion&) = delete;
  ~AnomalyRegion() { set(State::Off); }

  State state() const { return state_; }
  void set(State state);

 private:
  State state_ = State::Off;
};

}  // namespace gmml
