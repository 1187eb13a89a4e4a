"""The audit service: Merkle trees and signed checkpoints of the other services' logs, and the independent replay."""
